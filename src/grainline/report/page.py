"""The report as HTML: one file that opens anywhere, without a script, without the network.

jinja escapes whatever it fills in, :func:`~grainline.report.words.harmless` before that spells out what a browser would
obey unseen, and the page's own policy forbids scripts and loading, should both fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from grainline.errors import UserError
from grainline.report import charts, facts, headline, read, series, side_by_side, words
from grainline.report.read import RunFiles

LONGEST = 6_000
"""Characters of an answer or a prompt that are shown."""
RECIPE = 50_000
"""Characters of a recipe that are shown."""
MOST = 12
"""Samples that are shown."""
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
        """In a frame of its own, so that neither page's style reaches the other."""
        style = "width: 100%; height: 48rem; border: 1px solid #8888; border-radius: 6px"
        return f'<iframe sandbox title="{escape(self.title)}" style="{style}" srcdoc="{escape(self.html)}"></iframe>'

    def save(self, file: str | Path) -> Path:
        """Write the page to ``file``."""
        Path(file).write_text(self.html, encoding="utf-8")
        return Path(file)


def page(folders: Sequence[str | Path]) -> Page:
    """The page of one run, or of several side by side.

    Raises:
        UserError: not a run, a damaged file, too many runs, or matplotlib is missing.
    """
    if not 1 <= len(folders) <= RUNS:
        raise UserError(f"{len(folders)} runs; a page shows 1 to {RUNS}.", where="report", instead="Choose some.")
    runs = read.runs(folders)
    shown = view(runs)
    return Page(_environment().get_template("page.html").render(shown), words.harmless(shown["title"]))


def view(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """Everything the template fills in."""
    several = len(runs) > 1
    aspects = _aspects(runs)
    samples, more = _samples(runs)
    shown = {
        "title": " · ".join(files.name for files in runs),
        "status": _status(runs),
        "several": several,
        "names": [files.name for files in runs],
        "headline": headline.several(runs) if several else headline.one(runs[0]),
        "warned": [(files.name, files.warnings) for files in runs if files.warnings],
        "compared": side_by_side.compared(runs) if several else [],
        "differ": side_by_side.differences(runs) if several else [],
        "changes": [] if several else _changes(runs[0]),
        "charts": [_chart(chart) for chart in (series.overlaid(runs) if several else series.single(runs[0]))],
        "aspects": aspects,
        "samples": samples,
        "more_samples": more,
        "temperature": read.dig(runs[0].recipe, "evaluation", "temperature"),
        "cost": facts.cost(runs[0]),
        "recipes": [_recipe(files) for files in runs],
        "origins": [
            {"name": files.name, "repeat": "\n".join(facts.repeat(files)), "facts": facts.provenance(files)}
            for files in runs
        ],
    }
    return shown | {"sections": _sections(shown)}


def _sections(shown: dict[str, Any]) -> list[tuple[str, str]]:
    changed = "Side by side" if shown["compared"] else "Before and after" if shown["changes"] else ""
    named = [("warnings", "Warnings" if shown["warned"] else ""), ("change", changed), ("curves", "Learning curves")]
    named += [
        ("aspects", "Aspects" if shown["aspects"] else ""),
        ("samples", "Samples"),
        ("cost", "" if shown["several"] else "Cost"),
    ]
    return [(key, name) for key, name in [*named, ("recipe", "Recipe"), ("provenance", "Provenance")] if name]


def _status(runs: Sequence[RunFiles]) -> str:
    if len(runs) > 1:
        unfinished = [files.name for files in runs if files.results is None]
        return f"{len(runs)} runs" + (f", not finished: {', '.join(unfinished)}" if unfinished else "")
    (files,) = runs
    begun = read.dig(files.provenance, "time")
    when = f", begun {str(begun).replace('T', ' ').removesuffix('Z')} UTC" if begun else ""
    return ("not finished" if files.results is None else f"the adapter of step {files.results['step']}") + when


def _changes(files: RunFiles) -> list[dict[str, Any]]:
    old, new = facts.before(files), facts.after(files)
    shown = []
    for name in facts.sets(files):
        there = new.get(name, {}) or old.get(name, {})
        count = f", {words.whole(there['rows'])} rows" if "rows" in there else ""
        shown.append({"title": f"Held out: {name}{count}", "before": name in old, "rows": facts.changes(files, name)})
    for name, metrics in files.later.items():
        rows = [facts.row(metric, {}, metrics) for metric in facts.measured(metrics)]
        count = f", {words.whole(metrics['rows'])} rows" if "rows" in metrics else ""
        shown.append({"title": f"Measured later: {name}{count}", "before": False, "rows": rows})
    return [one for one in shown if one["rows"]]


def _chart(chart: series.Chart) -> dict[str, Any]:
    from markupsafe import Markup

    columns, rows = series.table(chart)
    return {
        "title": chart.title,
        "note": chart.note,
        "level": chart.level,
        "line": words.number(chart.line, 1) if chart.line is not None else "",
        "key": [(curve.label, curve.style, curve.markers) for curve in chart.curves],
        "svg": Markup(charts.draw(chart)),
        "columns": columns,
        "rows": rows,
    }


def _aspects(runs: Sequence[RunFiles]) -> dict[str, Any] | None:
    from markupsafe import Markup

    groups, title, note = side_by_side.aspect_groups(runs)
    names = list(dict.fromkeys(aspect.name for _, found in groups for aspect in found))
    if not names:
        return None
    tables = [{aspect.name: aspect.after for aspect in found} for _, found in groups]
    return {
        "title": title,
        "note": note,
        "key": [(label, i, True) for i, (label, _) in enumerate(groups)],
        "svg": Markup(charts.intervals(groups)),
        "columns": ["aspect", *(label for label, _ in groups)],
        "rows": [[name, *(words.interval("margin", table.get(name, {})) for table in tables)] for name in names],
    }


def _samples(runs: Sequence[RunFiles]) -> tuple[list[dict[str, Any]], int]:
    """Prompts with the answers of all voices, and how many prompts are left out."""
    found = side_by_side.samples(runs)
    shown = [
        {
            "turns": [_said(who, text) for who, text in sample.turns],
            "answers": [_said(who, text) for who, text in sample.answers],
        }
        for sample in found[:MOST]
    ]
    return shown, max(0, len(found) - MOST)


def _said(who: str, text: str) -> dict[str, Any]:
    beginning, more = words.cut(text, LONGEST)
    return {"who": who, "text": beginning, "more": more}


def _recipe(files: RunFiles) -> dict[str, Any]:
    text, more = words.cut(files.recipe_text, RECIPE)
    return {"name": files.name, "choices": facts.choices(files), "text": text, "more": more}


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
    made.globals |= {
        "style": Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "colour": charts.colour,
        "dashes": charts.dashes,
        "glyph": charts.glyph,
        "pieces": words.pieces,
        "tight": lambda cell: cell.replace(", ", ",\u00a0"),  # a narrow column breaks before an interval, not in it
        "left_out": lambda count: f" … ({count:,} more characters)" if count else "",
    }
    return made
