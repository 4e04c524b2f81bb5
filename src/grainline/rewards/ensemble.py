r"""Several rewards as one: the mean of what they say, and how far they are apart.

For each piece and aspect, over the n of K members that can say something,

.. math:: \bar v = \frac{1}{n} \sum_k v_k, \qquad
    s^2 = \frac{1}{n - 1} \sum_k (v_k - \bar v)^2 + \frac{1}{n} \sum_k s_k^2

the mean and the total variance: disagreement, and what members say of their own spread (0 where they say nothing).
n = 0: both NaN. n = 1: the spread is NaN, one opinion cannot disagree. Two answers are compared by the mean of the
members' comparisons. Disagreement of reward models as uncertainty is the paper's (Houliston et al. 2024); which
deviation it takes could not be read, so n - 1 and the second summand are ours.

Units: members that have the same bounds keep them, and so does the ensemble; members of different bounds are each
mapped onto 0 (worst) to 1 (best). A deviation between scales that have nothing to do with each other means nothing, so
members with bounds and members without do not mix: ``bounds`` gives the latter theirs. Where all members lack bounds
their scores are taken as they are: reward models of one kind, calibrated or standardised beforehand.

Raises, when made: :class:`grainline.errors.SpecError` (one member; some with bounds and some without).
Raises, when opened: :class:`grainline.errors.SpecError` (no members).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from pydantic import field_validator, model_validator

from grainline import rooms
from grainline.errors import SpecError
from grainline.rewards import _seam
from grainline.rewards._seam import Asked, Desk, Duel, Scores, Scoring
from grainline.rewards._spread import mean_and_spread
from grainline.types import spec

Bounds = tuple[float, float]
Matrix = tuple[tuple[float, ...], ...]
UNIT: Bounds = (0.0, 1.0)


@spec
class Ensemble:
    paper: ClassVar[str] = "arXiv:2410.20187"

    of: tuple[Any, ...] = ()
    """The members, each a reward: [(head:path=a), (head:path=b)]. Two at least."""
    bounds: tuple[float, float] | None = None
    """Worst and best score of members without bounds of their own; what lies beyond is taken for these."""

    @field_validator("of", mode="before")
    @classmethod
    def _rewards(cls, value: Any) -> Any:
        listed = value if isinstance(value, (list, tuple)) else [value]
        return tuple(rooms.resolve("rewards", member) for member in listed)

    @model_validator(mode="after")
    def _one_scale(self) -> Ensemble:
        if len(self.of) == 1:
            raise ValueError("one member cannot disagree with itself: name two at least")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError("bounds are [worst, best], and higher is better")
        found = self._bounds()
        if None in found and any(found):
            without = rooms.text(self.of[found.index(None)])
            raise ValueError(f"{without} has no bounds and others have: state its bounds=[worst, best]")
        return self

    def _bounds(self) -> list[Bounds | None]:
        """Of each member."""
        return [member.between or self.bounds for member in self.of]

    @property
    def between(self) -> Bounds | None:
        """What the members have in common, else 0 to 1; None where they have no bounds."""
        found = set(self._bounds())
        if len(found) > 1:
            return UNIT
        return found.pop() if found else None

    @property
    def needs(self) -> frozenset[str]:
        """What any member needs."""
        return frozenset[str]().union(*(member.needs for member in self.of))

    @contextmanager
    def open(self, desk: Desk) -> Iterator[Together]:
        if not self.of:
            raise SpecError("no members.", where="ensemble:of", instead="Write of=[(head:path=a), (head:path=b)].")
        onto = [(bounds, self.between) for bounds in self._bounds()]
        with ExitStack() as stack:
            yield Together([stack.enter_context(member.open(desk)) for member in self.of], onto)


class Together:
    """The members, opened, and the bounds (from, to) by which each comes onto the common scale."""

    def __init__(self, members: Sequence[Scoring], onto: Sequence[tuple[Bounds | None, Bounds | None]]) -> None:
        self._members, self._onto = members, onto

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        # Each member reads ahead as far as it likes; tee keeps what the slowest has not read yet.
        questions = itertools.tee(asked, len(self._members))
        heard = (member.score(each) for member, each in zip(self._members, questions, strict=True))
        for opinions in zip(*heard, strict=True):
            yield mean_and_spread([on_scale(*said) for said in zip(opinions, self._onto, strict=True)])

    def compare(self, duels: Iterable[Duel]) -> Iterator[float]:
        listed = list(duels)
        said = [_seam.compare(member, listed) for member in self._members]
        yield from map(statistics.fmean, zip(*said, strict=True))


def on_scale(scores: Scores, bounds: tuple[Bounds | None, Bounds | None]) -> Scores:
    """``scores`` between the first bounds as scores between the second; those beyond the first are taken for them."""
    old, new = bounds
    if old is None or new is None:
        return scores
    low, high = old
    factor = (new[1] - new[0]) / (high - low)

    def moved(value: float) -> float:
        # A NaN compares as nothing, so min and max would make a score of it.
        inside = value if math.isnan(value) else min(high, max(low, value))
        return new[0] + (inside - low) * factor

    def each(matrix: Matrix, change: Callable[[float], float]) -> Matrix:
        return tuple(tuple(map(change, row)) for row in matrix)

    spread = None if scores.spread is None else each(scores.spread, lambda deviation: deviation * factor)
    return Scores(each(scores.value, moved), spread)
