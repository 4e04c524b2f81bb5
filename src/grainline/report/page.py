"""The report as HTML: one file that opens anywhere, without the network.

jinja escapes whatever it fills in, :func:`~grainline.report.words.harmless` before that spells out what a browser would
obey unseen. Should both fail, the page's own policy lets nothing be loaded, and no script or style act but the two that
it names by their digests: not even a ``style`` attribute.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from grainline import atomic
from grainline.errors import UserError
from grainline.report import charts, read, shades, words
from grainline.report.view import view

RUNS = 12
"""Runs that one page compares."""

_TEMPLATES = Path(__file__).with_name("templates")


class Page:
    """A finished page. A notebook shows it; ``save`` writes it."""

    def __init__(self, html: str, title: str) -> None:
        self.html, self.title = html, title

    def __str__(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {words.size(len(self.html.encode()))})"

    def _repr_html_(self) -> str:
        """In a frame of its own origin: neither page's style reaches the other, and its script reaches nothing."""
        style = "width: 100%; height: 48rem; border: 1px solid #8888; border-radius: 6px"
        title, html = escape(self.title), escape(self.html)
        return f'<iframe sandbox="allow-scripts" title="{title}" style="{style}" srcdoc="{html}"></iframe>'

    def save(self, file: str | Path) -> Path:
        """Write the page to ``file``."""
        atomic.text(Path(file), self.html)
        return Path(file)


def page(folders: Sequence[str | Path]) -> Page:
    """The page of one run, or of several side by side.

    Raises:
        UserError: not a run, a damaged file, too many runs, or matplotlib is missing.
    """
    if not 1 <= len(folders) <= RUNS:
        raise UserError(f"{len(folders)} runs; a page shows 1 to {RUNS}.", where="report", instead="Choose some.")
    shown = view(read.runs(folders))
    return Page(_environment().get_template("page.html").render(shown), words.harmless(shown["title"]))


def policy(style: str, script: str) -> str:
    """What the page may do: nothing, but this style and this script."""
    allowed = f"style-src {_digest(style)}; script-src {_digest(script)}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise UserError(
            "pages are filled in by jinja2, which is not installed.",
            where="report",
            instead="pip install 'grainline[report]', or ask for --format md.",
        ) from error
    from markupsafe import Markup

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: words.harmless(value) if type(value) is str else value,
    )
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8") + shades.rules() + shades.run_rules(RUNS)
    script = (_TEMPLATES / "script.js").read_text(encoding="utf-8")
    made.globals |= {
        "style": Markup(style),
        "script": Markup(script),
        "policy": Markup(policy(style, script)),
        "colour": charts.colour,
        "dashes": charts.dashes,
        "glyph": charts.glyph,
        "pieces": words.pieces,
        "tight": lambda cell: cell.replace(", ", ",\u00a0"),  # a narrow column breaks before an interval, not in it
        "left_out": lambda count: f" … ({count:,} more characters)" if count else "",
    }
    return made
