"""matplotlib's drawings as SVG that stands in the page itself.

Chosen from measurements (one chart of 300 points, text as text): matplotlib 3.11 gives 18 kB of plain SVG from a wheel
of 10 MB under a BSD-style licence, and most who train models have it. Altair with vl-convert gives 17 kB, but brings a
JavaScript engine (34 MB, twice the memory, 0.35 s a chart instead of 0.15 s). Bokeh and plotly put 1.3 MB and 4.8 MB of
script into each page, which then is empty wherever scripts are off, as in mail and many viewers. What they would add,
values under the pointer, is two dozen lines of script over these drawings (templates/script.js).

Nothing of matplotlib's look is left to chance: text is text in the page's own letters, and colours are the page's
variables (``--c0`` to ``--c5``, ``--ink``, ``--rule``), so that one drawing serves light, dark and paper. There is no
``style`` attribute: the page's policy would not let it act.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

from grainline.errors import UserError
from grainline.report import words
from grainline.report.series import Chart, Curve, Point

WIDTH = 5.0  # inches; the page scales them
COLOURS = 6

INK, _RULE = "#0000e0", "#0000e1"  # exchanged for the page's variables when the drawing is done
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "none",
    "axes.edgecolor": _RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "path.simplify": False,
}


def placeholder(style: int) -> str:
    """The colour of a style while matplotlib draws."""
    return f"#0000f{style % COLOURS}"


def context(salt: str) -> Any:
    """matplotlib with this page's look, until the context ends.

    Raises:
        UserError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            "charts are drawn by matplotlib, which is not installed.",
            where="report",
            instead="pip install 'grainline[report]', or ask for --format md.",
        ) from error
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt})


def axes(height: float) -> Any:
    """Axes on a figure of their own, ``height`` inches high."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_visible(False)
    made = figure.subplots()
    made.patch.set_visible(False)
    return made


def finished(axes: Any, label: str, curves: Sequence[Curve] = (), chart: Chart | None = None) -> str:
    """The drawing as ``<svg>``, without what only a file of its own needs, in the page's colours.

    Args:
        label: What is seen, in a sentence.
        curves: Whose values a pointer may read off.
        chart: What they belong to: it says what lies along the horizontal axis.
    """
    from markupsafe import escape

    figure, stream = axes.figure, io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's own letters will do
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # numbers of thirty digits
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = stream.getvalue()
    drawn = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(<g\b[^>]*?) id="[^"]*"', r"\1", drawn).replace("xlink:href", "href")
    drawn = re.sub(r' style="([^"]*)"', _attributes, drawn)
    drawn = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(-?\d+\.\d\d)\d+", r"\1", tag[0]), drawn)
    drawn = drawn.replace(INK, "var(--ink)").replace(_RULE, "var(--rule)")
    drawn = re.sub(r"#0000f(\d)", r"var(--c\1)", drawn)
    width, height = (72 * inches for inches in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(words.harmless(label))}"'
    if chart is not None:
        said = {
            "x": chart.x,
            "y": chart.y,
            "kind": chart.kind,
            "ticks": "|".join(tick.replace("|", "/") for tick in chart.ticks),
        }
        head += "".join(f' data-{key}="{escape(words.harmless(text))}"' for key, text in said.items() if text)
    values = _values(axes, curves) if curves else ""
    return re.sub(r">\s+<", "><", head + ">" + drawn.strip().removesuffix("</svg>") + values + "</svg>")


def _attributes(found: re.Match[str]) -> str:
    """What a ``style`` says as attributes."""
    said = dict(part.split(": ", 1) for part in found[1].split("; ") if ": " in part)
    if font := said.pop("font", ""):  # "9px 'DejaVu Sans', sans-serif"
        said["font-size"] = font.split("px")[0].split()[-1] + "px"
    said.pop("font-family", "")
    return "".join(f' {key}="{value}"' for key, value in said.items())


def _values(axes: Any, curves: Sequence[Curve]) -> str:
    """Each curve's numbers, and where the axes put them."""
    from markupsafe import escape

    scale = axes.transData + axes.figure.transFigure.inverted()
    x, y = axes.get_xlim(), axes.get_ylim()
    (left, low), (right, high) = scale.transform([(x[0], y[0]), (x[1], y[1])])
    width, height = (72 * inches for inches in axes.figure.get_size_inches())
    ends = (*x, left * width, right * width, *y, (1 - low) * height, (1 - high) * height)
    said = "".join(
        f'<g data-label="{escape(words.harmless(curve.label))}" data-style="{curve.style % COLOURS}" '
        f'data-points="{" ".join(map(_point, curve.points))}"></g>'
        for curve in curves
    )
    return f'<g data-axes="{" ".join(f"{end:.6g}" for end in ends)}">{said}</g>'


def _point(point: Point) -> str:
    x, *rest = (value for value in point if value is not None)
    return ",".join([f"{x:.10g}", *(f"{value:.5g}" for value in rest)])
