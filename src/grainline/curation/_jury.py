"""Several rewards on one scale: what a jury says of an answer, and how far its members are apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from grainline.rewards._parts import mean, unit

if TYPE_CHECKING:
    from grainline.rewards._seam import Scores

Matrix = list[list[float]]


class Bounds(NamedTuple):
    """Between which numbers scores lie."""

    worst: float
    best: float
    assumed: bool = False  # the reward promises none: what lies beyond is taken for these


class Judged(NamedTuple):
    """What a jury says of one answer; (S, A), NaN where it cannot say."""

    value: Matrix
    spread: Matrix
    members: tuple[float, ...]  # what each member says of the answer, NaN where it can say nothing


def judged(scores: Sequence[Scores], bounds: Sequence[Bounds | None]) -> Judged:
    """One answer by all members, on one scale."""
    values = [scaled(one.value, bound) for one, bound in zip(scores, bounds, strict=True)]
    size = range(len(values[0])), range(len(values[0][0]))
    cells = [[[value[s][a] for value in values] for a in size[1]] for s in size[0]]
    if len(scores) > 1:
        spread = [[deviation(cell) for cell in row] for row in cells]
    else:
        width = (bounds[0].best - bounds[0].worst) if bounds[0] else 1.0
        known = scores[0].spread or [[math.nan for _ in size[1]] for _ in size[0]]
        spread = [[cell / width for cell in row] for row in known]
    members = tuple(mean([cell for row in value for cell in row]) for value in values)
    return Judged([[mean(cell) for cell in row] for row in cells], spread, members)


def numbers(found: Judged) -> dict[str, float | None]:
    """What is said of the answer as a whole."""
    score, spread = (mean([cell for row in matrix for cell in row]) for matrix in (found.value, found.spread))
    return {"score": null(score)} | ({} if math.isnan(spread) else {"uncertainty": spread})


def scaled(value: Sequence[Sequence[float]], bounds: Bounds | None) -> Matrix:
    """From 0 to 1 by ``bounds``; as it is without."""
    if bounds is None:
        return [list(row) for row in value]
    if bounds.assumed:
        value = [[min(max(cell, bounds.worst), bounds.best) for cell in row] for row in value]
    return [[unit(cell, bounds[:2]) for cell in row] for row in value]


def deviation(values: Sequence[float]) -> float:
    """Standard deviation (over n - 1) of those that are numbers."""
    known = [value for value in values if not math.isnan(value)]
    middle = mean(known)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in known) / (len(known) - 1)) if len(known) > 1 else math.nan


def null(value: float) -> float | None:
    return None if math.isnan(value) else value
