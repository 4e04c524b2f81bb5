"""The files of runs -> curves to draw. One run shows training beside held-out rows; several lie on each other.

Single steps differ in their rows, so training is drawn twice: faint as it was logged, strong as a moving mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from grainline.report import facts, words
from grainline.report.read import Line, RunFiles

MOST = 300
"""Points of a curve; more are averaged, neighbours together."""
FAR = 1e30
"""What is beyond this is not drawn: the axis would say nothing of the rest."""
TABLE = 24
"""Rows of the table below a chart."""
SETS = 3
"""Held-out sets that are drawn; tables show all."""


class Point(NamedTuple):
    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Curve(NamedTuple):
    label: str
    style: int  # colour, dashes and marker go together, so that none is needed alone
    points: Sequence[Point]
    faint: Sequence[Point] = ()  # the same before it was averaged
    markers: bool = False


class Chart(NamedTuple):
    key: str  # "loss", for ids
    title: str
    note: str  # what is drawn, in a few words
    curves: Sequence[Curve]
    line: float | None = None  # a level to compare with
    level: str = ""  # what it is
    span: tuple[float, float] | None = None  # of the vertical axis
    kind: str = "lines"  # or "points", "bars"
    x: str = "step"  # what lies along the horizontal axis, with its unit
    y: str = ""
    ticks: Sequence[str] = ()  # what the places 0, 1, 2... are called, where they are no numbers


def single(files: RunFiles) -> list[Chart]:
    """The learning curves of one run."""
    names = facts.sets(files)[:SETS]
    width = _width(files)
    said = f"training: mean of {width} steps, single steps faint" if width > 1 else ""
    clip = files.recipe.get("max_grad_norm")
    clip = float(clip) if isinstance(clip, (int, float)) and clip > 0 else None

    def trained(label: str, metric: str, style: int) -> Curve:
        return _training(files, label, metric, style, width)

    def held_out(metric: str, style: int, label: str = "") -> list[Curve]:
        return [_held_out(files, label or f"held out, {n}", n, metric, style + i) for i, n in enumerate(names)]

    moved = [
        _since_start(_held_out(files, f"{side}, {name}", name, f"logps/{side}", 2 * i + j))
        for i, name in enumerate(names)
        for j, side in enumerate(("chosen", "rejected", "answer"))
    ]
    if not any(len(curve.points) > 1 for curve in moved):
        moved = [trained(side, f"logps/{side}", i) for i, side in enumerate(("chosen", "rejected"))]
        title, about = "Likelihood in training", "; ".join(filter(None, ("nats an answer", said)))
    else:
        title = "Likelihood since the start"
        about = "held-out answers, nats an answer; both falling means that chosen ones are displaced"
    rewards = [trained(f"{side}, training", f"rewards/{side}", i) for i, side in enumerate(("chosen", "rejected"))]
    rewards += [
        _held_out(files, f"{side}, {name}", name, f"rewards/{side}", 2 + i)
        for name in names[:1]
        for i, side in enumerate(("chosen", "rejected"))
    ]
    charts = [
        Chart("loss", "Loss", said, [trained("training", "loss", 0)]),
        Chart(
            "accuracy",
            "Accuracy",
            "share of pairs won; bands: 95 % intervals",
            [trained("training", "rewards/accuracies", 0), *held_out("rewards/accuracies", 1)],
            line=0.5,
            level="chance",
            span=(-0.02, 1.02),
        ),
        Chart(
            "likelihood",
            "Accuracy by likelihood alone",
            "chosen answer likelier a token, without the reference; bands: 95 % intervals",
            held_out("likelihood/accuracies", 1),
            line=0.5,
            level="chance",
            span=(-0.02, 1.02),
        ),
        Chart(
            "margin",
            "Margin",
            "reward of chosen minus rejected; bands: 95 % intervals",
            [trained("training", "rewards/margins", 0), *held_out("rewards/margins", 1)],
            line=0.0,
        ),
        Chart("rewards", "Rewards", "beta times nats against the reference", rewards, line=0.0),
        Chart("logps", title, about, moved, line=0.0 if title.endswith("start") else None),
        Chart(
            "norm", "Gradient norm", said, [trained("before clipping", "grad_norm", 0)], line=clip, level="clipped at"
        ),
        Chart("rate", "Learning rate", "", [_training(files, "largest of all roles", "learning_rate", 0, 1)]),
        Chart(
            "geometry",
            "What became of the weights",
            "means over changed matrices; angle in radians, the rest relative to before",
            [_geometry(files, name, i) for i, name in enumerate(("change", "angle", "spectrum", "energy"))],
            line=0.0,
        ),
    ]
    return _drawn(charts)


def overlaid(several: Sequence[RunFiles]) -> list[Chart]:
    """The learning curves of several runs, each on its first held-out set."""

    def training(metric: str, width: int = 0) -> list[Curve]:
        return [_training(f, f.name, metric, i, width or _width(f), faint=False) for i, f in enumerate(several)]

    def held_out(metric: str, change: Callable[[Curve], Curve] = lambda curve: curve) -> list[Curve]:
        first = [(i, f, facts.sets(f)) for i, f in enumerate(several)]
        return [change(_held_out(f, f.name, names[0], metric, i)) for i, f, names in first if names]

    mean, band = "training, moving mean", "held out; bands: 95 % intervals"
    charts = [
        Chart("accuracy", "Held-out accuracy", band, held_out("rewards/accuracies"), line=0.5, level="chance"),
        Chart("likelihood", "Accuracy by likelihood alone", band, held_out("likelihood/accuracies"), 0.5, "chance"),
        Chart("margin", "Held-out margin", band, held_out("rewards/margins"), line=0.0),
        Chart(
            "chosen",
            "Chosen answers since the start",
            "held out, nats an answer",
            held_out("logps/chosen", _since_start),
            0.0,
        ),
        Chart(
            "rejected",
            "Rejected answers since the start",
            "held out, nats an answer",
            held_out("logps/rejected", _since_start),
            line=0.0,
        ),
        Chart("loss", "Loss", mean, training("loss")),
        Chart("won", "Accuracy in training", mean, training("rewards/accuracies"), line=0.5, level="chance"),
        Chart("norm", "Gradient norm", mean, training("grad_norm")),
        Chart("rate", "Learning rate", "", training("learning_rate", 1)),
    ]
    return _drawn(charts)


def summary(chart: Chart) -> str:
    """A chart in one sentence, for those who do not see it."""
    if chart.kind == "points":
        clouds = [f"{c.label}, {len(c.points)} points" for c in chart.curves]
        return f"{chart.title}: {'; '.join(clouds)}; {chart.x} against {chart.y}."
    ends = [
        f"{c.label} from {words.number(c.points[0].y)} at {chart.x} {c.points[0].x:g} "
        f"to {words.number(c.points[-1].y)} at {chart.x} {c.points[-1].x:g}"
        for c in chart.curves
    ]
    return f"{chart.title}: {'; '.join(ends)}."


def table(chart: Chart) -> tuple[list[str], list[list[str]]]:
    """The numbers of a chart: its columns, and a row for each of a few steps."""
    seldom = {point.x for curve in chart.curves if len(curve.points) <= TABLE // 2 for point in curve.points}
    often = sorted({point.x for curve in chart.curves for point in curve.points} - seldom)
    steps = sorted(seldom | set(often[:: math.ceil(len(often) / TABLE) or 1]) | set(often[-1:]))
    columns = [{point.x: point for point in curve.points} for curve in chart.curves]
    rows = [
        [chart.ticks[round(x)] if chart.ticks else f"{x:.10g}", *(_cell(column.get(x)) for column in columns)]
        for x in steps
    ]
    return [chart.x, *(curve.label for curve in chart.curves)], rows


def _cell(point: Point | None) -> str:
    if point is None:
        return ""
    bounds = {"y_low": point.low, "y_high": point.high} if point.low is not None else {}
    return words.interval("y", {"y": point.y, **bounds})


# ------------------------------------------------------------------------------------------------------------ curves


def _training(files: RunFiles, label: str, metric: str, style: int, width: int, *, faint: bool = True) -> Curve:
    points = _thinned([Point(line["step"], line[metric]) for line in files.steps if _is_there(line, metric)])
    smooth = _moving(points, width)
    return Curve(label, style, smooth, points if faint and width > 1 else ())


def _held_out(files: RunFiles, label: str, name: str, metric: str, style: int) -> Curve:
    looks = [(line["step"], facts.by_set(line).get(name, {})) for line in files.looks]
    points = [
        Point(step, look[metric], look.get(f"{metric}_low"), look.get(f"{metric}_high"))
        for step, look in looks
        if _is_there(look, metric)
    ]
    return Curve(label, style, _thinned(points), markers=True)


def _geometry(files: RunFiles, name: str, style: int) -> Curve:
    key = f"geometry_{name}"
    return Curve(name, style, [Point(x["step"], x[key]) for x in files.looks if _is_there(x, key)], markers=True)


def _since_start(curve: Curve) -> Curve:
    begun = any(point.x == 0 for point in curve.points[:1])  # else nobody looked before the first step
    points = [Point(point.x, point.y - curve.points[0].y) for point in curve.points] if begun else []
    return curve._replace(points=points)


def _is_there(line: Line, metric: str) -> bool:
    return metric in line and math.isfinite(line[metric]) and abs(line[metric]) < FAR


def _width(files: RunFiles) -> int:
    """Steps of the moving mean: an eighth of what is drawn, an odd number."""
    return min(25, min(len(files.steps), MOST) // 8) | 1


def _moving(points: Sequence[Point], width: int) -> list[Point]:
    half = width // 2
    near = [points[max(0, i - half) : i + half + 1] for i in range(len(points))]
    return [point._replace(y=fmean(p.y for p in around)) for point, around in zip(points, near, strict=True)]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most :data:`MOST` points, each the mean of its neighbours."""
    each = math.ceil(len(points) / MOST)
    if each < 2:
        return list(points)
    groups = [points[i : i + each] for i in range(0, len(points), each)]
    return [Point(group[-1].x, fmean(point.y for point in group)) for group in groups]


def _drawn(charts: Sequence[Chart]) -> list[Chart]:
    """The charts that have something to draw."""
    kept = [chart._replace(curves=[c for c in chart.curves if c.points]) for chart in charts]
    return [chart for chart in kept if any(len(curve.points) > 1 for curve in chart.curves)]
