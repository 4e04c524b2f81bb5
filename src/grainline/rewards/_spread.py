"""How far several opinions of the same pieces lie apart, and whether that tells wrong labels from right ones.

``K`` opinions, each a matrix of ``S`` pieces and ``A`` aspects. NaN is "cannot say" and takes part in nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from grainline.errors import DataError
from grainline.rewards._seam import Scores

if TYPE_CHECKING:
    import numpy as np


def mean_and_spread(opinions: Sequence[Scores]) -> Scores:
    r"""The mean of what was said of each piece and aspect, and one standard deviation of it.

    .. math:: s^2 = \frac{1}{n - 1} \sum_k (v_k - \bar v)^2 + \frac{1}{n} \sum_k s_k^2

    over the n opinions that are no NaN: the total variance, with s_k what an opinion says of its own spread, 0 where it
    says nothing. The mean is NaN if n = 0, the spread if n < 2: one opinion cannot disagree.
    """
    pieces = range(len(opinions[0].value))
    said = [[_said(opinions, s, a) for a in range(len(opinions[0].value[s]))] for s in pieces]
    return Scores(
        tuple(tuple(_mean(values) for values, _ in row) for row in said),
        tuple(tuple(_deviation(values, own) for values, own in row) for row in said),
        tuple(opinion.value for opinion in opinions),
    )


def _said(opinions: Sequence[Scores], s: int, a: int) -> tuple[list[float], list[float]]:
    """Values and own spreads of those who can say something of piece ``s`` in aspect ``a``."""
    values, own = [], []
    for opinion in opinions:
        if not math.isnan(value := opinion.value[s][a]):
            spread = 0.0 if opinion.spread is None else opinion.spread[s][a]
            values.append(value)
            own.append(0.0 if math.isnan(spread) else spread)
    return values, own


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _deviation(values: Sequence[float], own: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    return math.sqrt(statistics.variance(values) + statistics.fmean(spread**2 for spread in own))


class Separation(NamedTuple):
    """How well a number tells two kinds of rows apart; low and high enclose 95 %."""

    auc: float
    low: float
    high: float


def separation(
    number: Sequence[float],
    marked: Sequence[bool],
    groups: Sequence[Hashable] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Separation:
    r"""How likely a marked row has a larger ``number`` than one that is not marked; 1/2 is chance.

    .. math:: \mathrm{AUC} = P(u_m > u_o) + \tfrac12 P(u_m = u_o)

    (Mann and Whitney's U over its largest value.) The interval is the percentile bootstrap's over ``draws`` resamplings
    of whole ``groups``: rows of one prompt, or one row under several seeds, are no independent witnesses. A row whose
    number is NaN is left out.

    Raises:
        DataError: no marked rows, or no others.
    """
    import numpy as np

    known = [i for i, value in enumerate(number) if not math.isnan(value)]
    values, kinds = np.asarray(number, dtype=float)[known], np.asarray(marked, dtype=bool)[known]
    if kinds.all() or not kinds.any():
        raise DataError("separation needs marked rows and others.", where="separation")
    _, place = np.unique(values, return_inverse=True)
    names = {name: n for n, name in enumerate(dict.fromkeys(groups[i] for i in known))} if groups else {}
    member = np.asarray([names[groups[i]] for i in known] if groups else range(len(known)))
    luck, count = np.random.default_rng(seed), int(member.max()) + 1
    resampled = (np.bincount(luck.integers(count, size=count), minlength=count)[member] for _ in range(draws))
    found = [_auc(place, kinds, times.astype(float)) for times in resampled]
    low, high = np.nanquantile(found, (0.025, 0.975))
    return Separation(_auc(place, kinds, np.ones(len(known))), float(low), float(high))


def _auc(place: np.ndarray, marked: np.ndarray, times: np.ndarray) -> float:
    """The AUC where each row stands ``times`` times; ``place`` is the rank of its number, equal numbers equal."""
    import numpy as np

    size = int(place.max()) + 1
    mine, others = (np.bincount(place[kind], times[kind], size) for kind in (marked, ~marked))
    below = np.cumsum(others) - others
    pairs = mine.sum() * others.sum()
    return float((mine * (below + 0.5 * others)).sum() / pairs) if pairs else math.nan
