"""What an evaluation measured -> charts, family by family. Each number that is drawn stands in the evaluation's files.

``CHARTS`` says which charts a family has; each is a function of the evaluation that answers None where the files do not
hold what it draws.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import StatisticsError, correlation, fmean
from typing import Any

from grainline.report import words
from grainline.report.jsonl import Line
from grainline.report.measured import Evaluation
from grainline.report.series import FAR, Chart, Curve, Point

CLOUD = 600
"""Points of a cloud; of more, every n-th is drawn."""


def calibration(found: Evaluation) -> Chart | None:
    """What the margin said against what came true."""
    points = _points(found.table("preference", "calibration"), "said", "was")
    if len(points) < 2:
        return None
    ends = [Point(at, at) for at in (min(p.x for p in points), max(p.x for p in points))]
    curves = [Curve("measured", 0, points, markers=True), Curve("as it should be", 5, ends)]
    note = "how sure the margin is that the chosen answer is better, against how often it is"
    return Chart("calibration", "Calibration", note, curves, x="said", y="was")


def by_length(found: Evaluation) -> Chart | None:
    """Accuracy by the length of the longer answer."""
    table = found.table("preference", "lengths")
    points = [_bounded(i, row, "accuracy") for i, row in enumerate(table)]
    return _bars(
        "lengths", "Accuracy by length", "lines: 95 % intervals", [Curve("accuracy", 0, _there(points))],
        x="tokens of the longer answer", ticks=[_range(row) for row in table], line=0.5, level="chance",
    )  # fmt: skip


def length_bias(found: Evaluation) -> Chart | None:
    """Margins against how much longer the chosen answer is."""
    each = [(_tokens(row, "chosen"), _tokens(row, "rejected"), _number(row, "rewards/margins")) for row in found.rows]
    points = [Point(c - r, m) for c, r, m in each if c is not None and r is not None and m is not None]
    note = "a dot is a pair"
    with contextlib.suppress(StatisticsError):  # fewer than two, or all alike
        note += f"; correlation {words.signed(correlation([p.x for p in points], [p.y for p in points]), 2)}"
    won, lost = [p for p in points if p.y > 0], [p for p in points if p.y <= 0]
    curves = [Curve("won", 0, _thinned(won), markers=True), Curve("lost or tied", 1, _thinned(lost), markers=True)]
    x, y = "tokens that the chosen answer is longer", "margin"
    return _cloud("length_bias", "Does the longer answer win?", note, curves, x=x, y=y)


def few_pairs(found: Evaluation) -> Chart | None:
    """The share of all margins that the pairs with the largest have."""
    margins = sorted((m for row in found.rows if (m := _number(row, "rewards/margins")) is not None), reverse=True)
    total = sum(margins)
    if len(margins) < 4 or total <= 0:
        return None
    so_far, points = 0.0, [Point(0, 0.0)]
    for i, margin in enumerate(margins, start=1):
        so_far += margin
        points.append(Point(100 * i / len(margins), 100 * so_far / total))
    tenth = next(point for point in points if point.x >= 10)
    shares = words.number(tenth.x, 1), words.number(tenth.y, 1)
    note = "the {} % of the pairs with the largest margins hold {} % of the sum".format(*shares)
    curves = [Curve("margins", 0, _thinned(points)), Curve("if all were equal", 5, [Point(0, 0), Point(100, 100)])]
    return Chart("few", "By few pairs?", note, curves, x="% of pairs, largest first", y="% of the margin")


def moved(found: Evaluation) -> Chart | None:
    """By how much each pair's answers became likelier."""
    changes = [(_change(row, "chosen"), _change(row, "rejected")) for row in found.rows]
    points = [Point(chosen, rejected) for chosen, rejected in changes if chosen is not None and rejected is not None]
    both = [p for p in points if p.x < 0 and p.y < 0]
    rest = [p for p in points if p.x >= 0 or p.y >= 0]
    share = f"; in {words.number(100 * len(both) / len(points), 1)} % of them both fell" if points else ""
    curves = [Curve("pairs", 0, _thinned(rest), markers=True), Curve("both fell", 1, _thinned(both), markers=True)]
    x, y = "chosen: nats since the reference", "rejected: nats"
    return _cloud(
        "moved", "Displacement", f"a dot is a pair: how its answers' log-probs moved{share}", curves, x=x, y=y
    )


def first_tokens(found: Evaluation) -> Chart | None:
    """The share of the margin that the first tokens make."""
    points = [Point(p.x, 100 * p.y) for p in _points(found.table("displacement", "margin_shares"), "tokens", "share")]
    if len(points) < 2:
        return None
    note = "share of the whole margin that the first so many tokens make"
    return Chart(
        "first", "By the first tokens?", note, [Curve("share", 0, points, markers=True)], 100.0, x="tokens", y="%"
    )


def layers(found: Evaluation) -> list[Chart]:
    """Each number of the geometry by layer: the mean over the layer's matrices, and their range."""
    by_layer: dict[int, list[Line]] = {}
    for row in found.table("geometry", "layers"):
        if match := re.search(r"(?:^|\.)(\d+)\.", str(row.get("name"))):
            by_layer.setdefault(int(match[1]), []).append(row)
    charts = []
    for key, note in GEOMETRY.items():
        values = {
            layer: [v for row in rows if (v := _number(row, key)) is not None]
            for layer, rows in sorted(by_layer.items())
        }
        points = [Point(layer, fmean(all_), min(all_), max(all_)) for layer, all_ in values.items() if all_]
        if len(points) > 1:
            charts.append(
                Chart(f"layers-{key}", f"{key.capitalize()} by layer", note, [Curve(key, 0, points)], 0.0, x="layer")
            )
    return charts


GEOMETRY = {
    "change": "size of the change, relative to the weight; band: least and most of the layer's matrices",
    "angle": "mean angle between neurons before and after, radians; band: least and most",
    "spectrum": "change of the singular values, relative; band: least and most",
    "energy": "change of the hyperspherical energy, relative; band: least and most",
}


def levels(found: Evaluation) -> Chart | None:
    """What was obtained where a level was asked for."""
    curves = []
    for i, (aspect, rows) in enumerate(_by(found.table("control", "levels"), "aspect").items()):
        asked = [(_number(row, "requested"), row) for row in rows]
        points = [_bounded(at, row, "obtained") for at, row in asked if at is not None]
        curves.append(Curve(aspect, i, _there(points), markers=True))
    kept = [curve for curve in curves if curve.points]
    if not any(len(curve.points) > 1 for curve in kept):
        return None
    note = "the level that answers have, for each that was asked for; bands: 95 % intervals"
    return Chart("levels", "Control", note, kept, x="requested", y="obtained")


def places(found: Evaluation) -> Chart | None:
    """Accuracy by the place of the relevant document."""
    table = found.table("documents", "places")
    points = [_bounded(i, row, "accuracy") for i, row in enumerate(table)]
    return _bars(
        "places", "By place of the document", "accuracy; lines: 95 % intervals", [Curve("accuracy", 0, _there(points))],
        x="place", ticks=[words.number(row.get("place")) for row in table],
    )  # fmt: skip


def _by_range(
    key: str, title: str, note: str, of: tuple[str, str], group: str, value: str, **more: Any
) -> Callable[[Evaluation], Chart | None]:
    """Draws bars for each range of tokens of a table, those of the ``group``s beside each other."""

    def draw(found: Evaluation) -> Chart | None:
        table = found.table(*of)
        ticks = list(dict.fromkeys(map(_range, table)))
        curves = [
            Curve(name, i, _there([_bounded(ticks.index(_range(row)), row, value) for row in rows]))
            for i, (name, rows) in enumerate(_by(table, group).items())
        ]
        return _bars(key, title, note, curves, x="token of the answer", ticks=ticks, **more)

    return draw


_POSITIONS = ("displacement", "positions")
positions = _by_range(
    "positions", "Where the change is", "mean log-ratio to the reference, nats a token", _POSITIONS, "role", "change",
    line=0.0,
)  # fmt: skip
drift = _by_range(
    "drift", "Where the policy drifts", "mean KL(reference || policy), nats a token", _POSITIONS, "role", "kl"
)
mask_positions = _by_range(
    "masks", "What the masks let through", "mean of the mask", ("masks", "positions"), "mask", "mean"
)

CHARTS: Mapping[str, Sequence[Callable[[Evaluation], Chart | list[Chart] | None]]] = {
    "preference": (few_pairs, length_bias, by_length, calibration),
    "displacement": (moved, positions, first_tokens, drift),
    "geometry": (layers,),
    "control": (levels,),
    "documents": (places,),
    "masks": (mask_positions,),
}


def of(family: str, found: Evaluation) -> list[Chart]:
    """The charts of a family."""
    made = [draw(found) for draw in CHARTS.get(family, ())]
    return [chart for one in made for chart in (one if isinstance(one, list) else [one]) if chart is not None]


def overlaid(found: Sequence[tuple[int, str, Evaluation]]) -> list[Chart]:
    """The same charts of several runs on each other: (style, name, what was measured) each."""
    charts = []
    for draw in (few_pairs, first_tokens, positions, drift, by_length, calibration):
        each = [(style, name, chart) for style, name, one in found if (chart := draw(one)) is not None]
        alike = [(style, name, chart) for style, name, chart in each if chart.ticks == each[0][2].ticks]
        if len(alike) > 1:
            first = each[0][2]
            curves = [chart.curves[0]._replace(label=name, style=style) for style, name, chart in alike]
            whose = f"{first.curves[0].label} answers" if first.curves[0].label in ("chosen", "desirable") else ""
            about = "share of the whole margin" if draw is few_pairs else first.note.partition(";")[0]
            note = "; ".join(filter(None, (about, whose)))
            charts.append(first._replace(curves=curves, note=note))
    return charts


# ------------------------------------------------------------------------------------------------------------- parts


def _by(table: Sequence[Line], key: str) -> dict[str, list[Line]]:
    """The rows of a table by what stands under ``key``."""
    found: dict[str, list[Line]] = {}
    for row in table:
        found.setdefault(str(row.get(key)), []).append(row)
    return found


def _bars(key: str, title: str, note: str, curves: list[Curve], **more: Any) -> Chart | None:
    kept = [curve for curve in curves if curve.points]
    return Chart(key, title, note, kept, kind="bars", **more) if any(len(curve.points) > 1 for curve in kept) else None


def _cloud(key: str, title: str, note: str, curves: list[Curve], **more: Any) -> Chart | None:
    kept = [curve for curve in curves if curve.points]
    return Chart(key, title, note, kept, 0.0, kind="points", **more) if sum(len(c.points) for c in kept) > 2 else None


def _thinned(points: Sequence[Point]) -> list[Point]:
    each = -(-len(points) // CLOUD) or 1
    return list(points[::each])


def _there(points: Sequence[Point | None]) -> list[Point]:
    return [point for point in points if point is not None]


def _points(table: Sequence[Line], x: str, y: str) -> list[Point]:
    found = [(_number(row, x), _number(row, y)) for row in table]
    return [Point(at, value) for at, value in found if at is not None and value is not None]


def _bounded(at: float, row: Line, key: str) -> Point | None:
    """A value with its interval, where it has both bounds."""
    value, low, high = (_number(row, name) for name in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return None
    return Point(at, value) if low is None or high is None else Point(at, value, low, high)


def _number(row: Line, key: str) -> float | None:
    """What can be drawn: a finite number that is not absurd."""
    value = row.get(key)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < FAR else None  # type: ignore[arg-type]


def _tokens(row: Line, role: str) -> float | None:
    answer = row.get(role)
    return _number(answer, "tokens") if isinstance(answer, Mapping) else None


def _change(row: Line, role: str) -> float | None:
    """The log-prob of an answer under the policy, less that under the reference, nats."""
    answer = row.get(role)
    if not isinstance(answer, Mapping) or not answer.get("policy") or not answer.get("reference"):
        return None
    both = [value for side in ("policy", "reference") for value in answer[side]]
    return None if None in both else _number({"": sum(answer["policy"]) - sum(answer["reference"])}, "")


def _range(row: Line) -> str:
    """The tokens that a row of a table is of: "8-15", or "64+"."""
    low, high = _number(row, "from"), _number(row, "to")
    if low is None or high is None:
        return f"{words.whole(low or 0)}+"
    return words.whole(low) if high - 1 <= low else f"{words.whole(low)}–{words.whole(high - 1)}"
