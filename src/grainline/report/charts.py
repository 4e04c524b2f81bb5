"""Curves and intervals as SVG that stands in the page itself, drawn by matplotlib.

Chosen from measurements (one chart of 300 points, text as text): matplotlib 3.11 gives 18 kB of plain SVG from a wheel
of 10 MB under a BSD-style licence, and most who train models have it. Altair with vl-convert gives 17 kB, but brings a
JavaScript engine (34 MB, twice the memory, 0.35 s a chart instead of 0.15 s). Bokeh and plotly put 1.3 MB and 4.8 MB of
script into each page, which then is empty wherever scripts are off, as in mail and many viewers.

Nothing of matplotlib's look is left to chance: text is text in the page's own letters, and colours are the page's
variables (``--c0`` to ``--c5``, ``--ink``, ``--rule``), so that one drawing serves light, dark and paper. Colour,
dashes and marker go together: nothing is told by colour alone.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from grainline.errors import UserError
from grainline.report import series, words
from grainline.report.facts import Aspect
from grainline.report.series import Chart, Curve, Point

WIDTH, HEIGHT = 5.0, 2.5  # inches; the page scales them
DASHES = ((), (6, 2.5), (2, 2), (8, 2, 2, 2), (10, 3), (4, 1.5))
"""Pixels drawn and left out, for each style of curve."""
MARKERS, GLYPHS = "osD^vP", "●■◆▲▼✚"
COLOURS = len(DASHES)

_INK, _RULE = "#0000e0", "#0000e1"  # exchanged for the page's variables when the drawing is done
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "none",
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "path.simplify": False,
}


def draw(chart: Chart) -> str:
    """A chart of curves as ``<svg>``."""
    with _context(chart.key):
        figure, axes = _axes(HEIGHT)
        if chart.line is not None:
            axes.axhline(chart.line, color=_INK, linewidth=0.8, alpha=0.6)
        for curve in chart.curves:
            _curve(axes, curve)
        if chart.span:
            axes.set_ylim(*chart.span)
        steps = [point.x for curve in chart.curves for point in curve.points]
        room = (max(steps) - min(steps)) * 0.02
        axes.set_xlim(min(steps) - room, max(steps) + room)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("step", loc="right", fontsize=8)
        return _svg(figure, series.summary(chart), _values(axes, chart.curves))


def intervals(groups: Sequence[tuple[str, Sequence[Aspect]]]) -> str:
    """Margins by aspect as ``<svg>``: a row for each aspect, in it a mark with its interval for each group."""
    names = list(dict.fromkeys(aspect.name for _, aspects in groups for aspect in aspects))
    with _context("aspects"):
        figure, axes = _axes(0.55 + names_height(len(names), len(groups)))
        axes.axvline(0.0, color=_INK, linewidth=0.8, alpha=0.6)
        for i, (_, aspects) in enumerate(groups):
            for aspect in aspects:
                y = names.index(aspect.name) + (i - (len(groups) - 1) / 2) * 0.7 / max(1, len(groups))
                _mark(axes, aspect.after, y, i)
        labels = [words.harmless(name) for name in names]
        axes.set_yticks(range(len(names)), [label if len(label) < 28 else f"{label[:26]}…" for label in labels])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("margin", loc="right", fontsize=8)
        said = "; ".join(
            f"{group}: {a.name} {words.interval('margin', a.after)}" for group, all_ in groups for a in all_
        )
        return _svg(figure, f"Margin by aspect. {said}.")


def names_height(names: int, groups: int) -> float:
    """Inches that the rows take."""
    return names * (0.16 + 0.12 * groups)


def colour(style: int) -> str:
    """The page's variable for a style of curve."""
    return f"var(--c{style % COLOURS})"


def glyph(style: int) -> str:
    """The marker of a style as a letter."""
    return GLYPHS[style % COLOURS]


def dashes(style: int) -> str:
    """The same as ``stroke-dasharray``."""
    return " ".join(map(str, DASHES[style % COLOURS])) or "none"


# ----------------------------------------------------------------------------------------------------------- drawing


def _curve(axes: Any, curve: Curve) -> None:
    own = _placeholder(curve.style)
    if curve.faint:
        axes.plot([p.x for p in curve.faint], [p.y for p in curve.faint], color=own, linewidth=0.8, alpha=0.3)
    banded = [p for p in curve.points if p.low is not None and p.high is not None]
    seldom = curve.markers and len(curve.points) < 3  # nobody looked in between: a thin line, no band
    lows, highs = [p.low for p in banded], [p.high for p in banded]
    if seldom:
        axes.vlines([p.x for p in banded], lows, highs, color=own, linewidth=1.4, clip_on=False)
        axes.plot([p.x for p in curve.points], [p.y for p in curve.points], color=own, linewidth=0.8, alpha=0.5)
    elif banded:
        axes.fill_between([p.x for p in banded], lows, highs, color=own, alpha=0.16, linewidth=0)
    axes.plot(
        [p.x for p in curve.points],
        [p.y for p in curve.points],
        color=own,
        linewidth=1.8,
        linestyle=_line(curve.style, seldom),
        marker=MARKERS[curve.style % COLOURS] if curve.markers and len(curve.points) <= 40 else None,
        markersize=4.5,
        clip_on=not curve.markers,
    )


def _line(style: int, without: bool) -> Any:
    pattern = DASHES[style % COLOURS]
    return "none" if without else (0, tuple(length / 1.8 for length in pattern)) if pattern else "solid"


def _mark(axes: Any, found: Any, y: float, style: int) -> None:
    own = _placeholder(style)
    found = {end: value for end, value in found.items() if abs(value) < series.FAR}  # nor what is not a number
    if "margin_low" in found and "margin_high" in found:
        axes.plot([found["margin_low"], found["margin_high"]], [y, y], color=own, linewidth=1.6)
    if "margin" in found:
        axes.plot([found["margin"]], [y], color=own, marker=MARKERS[style % COLOURS], markersize=6, linestyle="none")


def _placeholder(style: int) -> str:
    return f"#0000f{style % COLOURS}"


def _context(salt: str) -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            "charts are drawn by matplotlib, which is not installed.",
            where="report",
            instead="pip install 'grainline[report]', or ask for --format md.",
        ) from error
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt})


def _axes(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    return figure, axes


def _values(axes: Any, curves: Sequence[Curve]) -> Callable[[], str]:
    """What a pointer reads off the drawing: each curve's numbers, and where the axes put them."""

    def made() -> str:  # the layout stands only when all is drawn
        from markupsafe import escape

        scale = axes.transData + axes.figure.transFigure.inverted()
        (left, low), (right, high) = scale.transform(
            [(axes.get_xlim()[0], axes.get_ylim()[0]), (axes.get_xlim()[1], axes.get_ylim()[1])]
        )
        width, height = (72 * inches for inches in axes.figure.get_size_inches())
        ends = (
            *axes.get_xlim(),
            left * width,
            right * width,
            *axes.get_ylim(),
            (1 - low) * height,
            (1 - high) * height,
        )
        said = "".join(
            f'<g data-label="{escape(words.harmless(curve.label))}" data-style="{curve.style % COLOURS}" '
            f'data-points="{" ".join(_point(point) for point in curve.points)}"></g>'
            for curve in curves
        )
        return f'<g data-axes="{" ".join(f"{end:.6g}" for end in ends)}">{said}</g>'

    return made


def _point(point: Point) -> str:
    x, *rest = (value for value in point if value is not None)
    return ",".join([f"{x:.10g}", *(f"{value:.5g}" for value in rest)])


def _svg(figure: Any, label: str, values: Callable[[], str] = str) -> str:
    """The drawing without what only a file of its own needs, its colours exchanged for the page's."""
    from markupsafe import escape

    stream = io.StringIO()
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
    drawn = drawn.replace(_INK, "var(--ink)").replace(_RULE, "var(--rule)")
    drawn = re.sub(r"#0000f(\d)", r"var(--c\1)", drawn)
    width, height = (72 * inches for inches in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(words.harmless(label))}">'
    drawn = drawn.strip().removesuffix("</svg>") + values() + "</svg>"
    return re.sub(r">\s+<", "><", head + drawn)


def _attributes(found: re.Match[str]) -> str:
    """A ``style`` as attributes of their own: the page's policy lets no element bring a style."""
    said = dict(part.split(": ", 1) for part in found[1].split("; ") if ": " in part)
    if font := said.pop("font", ""):  # "9px 'DejaVu Sans', sans-serif": the page's own letters do
        said["font-size"] = font.split("px")[0].split()[-1] + "px"
    said.pop("font-family", "")
    return "".join(f' {key}="{value}"' for key, value in said.items())
