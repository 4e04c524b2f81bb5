"""Curves, clouds of points, bars and intervals as SVG.

Colour, dashes and marker go together: nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grainline.report import series, svg, words
from grainline.report.facts import Aspect
from grainline.report.series import Chart, Curve

HEIGHT = 2.5  # inches
DASHES = ((), (6, 2.5), (2, 2), (8, 2, 2, 2), (10, 3), (4, 1.5))
"""Pixels drawn and left out, for each style of curve."""
MARKERS, GLYPHS = "osD^vP", "●■◆▲▼✚"
COLOURS = svg.COLOURS


def draw(chart: Chart) -> str:
    """A chart as ``<svg>``."""
    with svg.context(chart.key):
        axes = svg.axes(HEIGHT)
        if chart.line is not None:
            axes.axhline(chart.line, color=svg.INK, linewidth=0.8, alpha=0.6)
        {"lines": _lines, "points": _cloud, "bars": _bars}[chart.kind](axes, chart)
        if chart.span:
            axes.set_ylim(*chart.span)
        axes.set_xlabel(words.harmless(chart.x), loc="right", fontsize=8)
        axes.set_ylabel(words.harmless(chart.y), loc="top", fontsize=8)
        if chart.ticks:
            axes.set_xticks(range(len(chart.ticks)), list(map(words.harmless, chart.ticks)))
        return svg.finished(axes, series.summary(chart), chart.curves, chart)


def intervals(groups: Sequence[tuple[str, Sequence[Aspect]]]) -> str:
    """Margins by aspect as ``<svg>``: a row for each aspect, in it a mark with its interval for each group."""
    names = list(dict.fromkeys(aspect.name for _, aspects in groups for aspect in aspects))
    with svg.context("aspects"):
        axes = svg.axes(0.55 + names_height(len(names), len(groups)))
        axes.axvline(0.0, color=svg.INK, linewidth=0.8, alpha=0.6)
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
        return svg.finished(axes, f"Margin by aspect. {said}.")


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


def _lines(axes: Any, chart: Chart) -> None:
    for curve in chart.curves:
        _curve(axes, curve)
    steps = [point.x for curve in chart.curves for point in curve.points]
    room = (max(steps) - min(steps)) * 0.02
    axes.set_xlim(min(steps) - room, max(steps) + room)
    axes.xaxis.get_major_locator().set_params(integer=all(step == int(step) for step in steps))


def _cloud(axes: Any, chart: Chart) -> None:
    axes.axvline(0.0, color=svg.INK, linewidth=0.8, alpha=0.6)
    for curve in chart.curves:
        own, marker = svg.placeholder(curve.style), MARKERS[curve.style % COLOURS]
        if curve.markers:
            x, y = [p.x for p in curve.points], [p.y for p in curve.points]
            axes.plot(x, y, color=own, marker=marker, markersize=4, alpha=0.55, linestyle="none", markeredgewidth=0)
        else:
            _curve(axes, curve)


def _bars(axes: Any, chart: Chart) -> None:
    """Bars beside each other at each place, the bounds of their intervals as thin lines."""
    count = len(chart.curves)
    width = (
        0.8
        / count
        * min((b.x - a.x for c in chart.curves for a, b in zip(c.points, c.points[1:], strict=False)), default=1)
    )
    for i, curve in enumerate(chart.curves):
        x = [point.x + (i - (count - 1) / 2) * width for point in curve.points]
        own = svg.placeholder(curve.style)
        fill = 0.75 if i % 2 == 0 else 0.2
        y, edge = [point.y for point in curve.points], _line(curve.style, without=False)
        axes.bar(x, y, width=width * 0.85, color=own, alpha=fill, linewidth=0)
        axes.bar(x, y, width=width * 0.85, facecolor="none", edgecolor=own, linewidth=1.2, linestyle=edge)
        banded = [(at, p.low, p.high) for at, p in zip(x, curve.points, strict=True) if p.low is not None]
        axes.vlines(
            [at for at, *_ in banded],
            [low for _, low, _ in banded],
            [high for *_, high in banded],
            color=svg.INK,
            linewidth=1,
        )
    axes.grid(axis="x", visible=False)


def _curve(axes: Any, curve: Curve) -> None:
    own = svg.placeholder(curve.style)
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
    own = svg.placeholder(style)
    found = {end: value for end, value in found.items() if abs(value) < series.FAR}  # nor what is not a number
    if "margin_low" in found and "margin_high" in found:
        axes.plot([found["margin_low"], found["margin_high"]], [y, y], color=own, linewidth=1.6)
    if "margin" in found:
        axes.plot([found["margin"]], [y], color=own, marker=MARKERS[style % COLOURS], markersize=6, linestyle="none")
