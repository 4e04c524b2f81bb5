"""Mathematics that rewards share: bounds, Bradley and Terry's model, calibration.

Letters: ``S`` pieces of an answer, ``A`` aspects. Scores are higher for better; NaN where nobody can say.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from grainline.errors import InvariantError

Item = TypeVar("Item")

ROUNDING = 1e-6
"""A score may lie outside its bounds by this share of them, and is put on the nearer one."""


def unit(value: float, between: tuple[float, float]) -> float:
    """A score between (worst, best) as one from 0 (wrong) to 1 (right), which spans hold. NaN stays.

    >>> unit(3, (1, 5))
    0.5

    Raises:
        InvariantError: it lies outside: the reward does not keep what it says of itself.
    """
    worst, best = between
    found = (value - worst) / (best - worst)
    if not math.isnan(found) and not -ROUNDING <= found <= 1 + ROUNDING:
        raise InvariantError(f"a score of {value:g} is outside the reward's bounds, {worst:g} to {best:g}")
    return found if math.isnan(found) else min(1.0, max(0.0, found))


def windows(items: Iterable[Item], about: Callable[[Item], object], *, each: int = 16) -> Iterator[list[Item]]:
    """A stream in pieces of about ``each`` subjects, for a reward that reads ahead and works in batches.

    Whether a piece ends behind a subject is decided by that subject alone. So a job that goes on in the middle of a
    piece cuts all that follows as it would have, and batches, whose rounding depends on their company, are the same.
    """
    window: list[Item] = []
    for item in items:
        if window and about(item) != (before := about(window[-1])):
            digest = hashlib.sha256(repr(before).encode("utf-8", "surrogatepass")).digest()
            if int.from_bytes(digest[:4], "big") % each == 0:
                yield window
                window = []
        window.append(item)
    if window:
        yield window


def mean(values: Sequence[float]) -> float:
    """Mean of those that are numbers; NaN where none is.

    >>> mean([1.0, float("nan"), 3.0])
    2.0
    """
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def bradley_terry(first: float, second: float) -> float:
    """How likely the first of two is the better one by their strengths, in nats; 1/2 where one is NaN.

    sigma(first - second), Bradley and Terry 1952: what reward models are trained by.
    """
    return sigmoid(first - second) if math.isfinite(first - second) else 0.5


def higher(first: float, second: float) -> float:
    """1 where the first of two scores is the higher one, 0 where the second is; 1/2 at a tie, or where one is NaN."""
    return 0.5 + 0.5 * ((first > second) - (first < second))


class Platt(NamedTuple):
    """Calibration: what was said, in log odds, becomes sigma(slope * said + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, said: float) -> float:
        return sigmoid(self.slope * said + self.offset)


def platt(said: Sequence[float], target: Sequence[float], weight: Sequence[float] | None = None) -> Platt:
    r"""The slope and offset that make ``said`` (log odds) likeliest, given ``target`` (0 to 1).

    Platt 1999: temperature scaling (slope 1/T) with an offset, so that what is said is right on average too. Two
    numbers can be learnt from some dozens of answers and keep the order of all scores; isotonic regression wants
    thousands and makes ties. Newton's steps on the weighted cross-entropy, with a prior of one observation in all
    that said 1/2 where the target was 1/2, so that separated data have an answer.

    A slope below 0 (said the wrong way round on data held out) becomes 0: the reward says what it knows, the mean.
    """
    import numpy as np

    x, y = np.asarray(said, dtype=float), np.asarray(target, dtype=float)
    w = np.ones_like(x) if weight is None else np.asarray(weight, dtype=float)
    design = np.stack([x, np.ones_like(x)], 1)
    scale = float(w @ x**2 / max(w.sum(), 1e-12)) or 1.0

    def fitted(columns: list[int]) -> np.ndarray:
        part, beta = design[:, columns], np.zeros(len(columns))
        prior = np.diag([0.25 * scale, 0.25])[np.ix_(columns, columns)]
        for _ in range(100):
            p = 1 / (1 + np.exp(-np.clip(part @ beta, -60, 60)))
            hessian = (part * (w * p * (1 - p))[:, None]).T @ part + prior
            step = np.linalg.solve(hessian, part.T @ (w * (y - p)) - prior @ beta)
            beta = beta + step * min(1.0, 4.0 / max(1e-12, float(np.abs(part @ step).max(initial=0.0))))
            if np.abs(step).max() < 1e-10:
                break
        return beta

    slope, offset = fitted([0, 1])
    if slope > 0:
        return Platt(float(slope), float(offset))
    return Platt(0.0, float(fitted([1])[0]))
