"""How far several opinions of the same pieces lie apart.

``K`` opinions, each a matrix of ``S`` pieces and ``A`` aspects. NaN is "cannot say" and takes part in nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from grainline.rewards._parts import mean
from grainline.rewards._seam import Scores


def mean_and_spread(opinions: Sequence[Scores]) -> Scores:
    r"""The mean of what was said of each piece and aspect, and one standard deviation of it.

    .. math:: s^2 = \frac{1}{n - 1} \sum_k (v_k - \bar v)^2 + \frac{1}{n} \sum_k s_k^2

    over the n opinions that are no NaN: the total variance, with s_k what an opinion says of its own spread, 0 where it
    says nothing. The mean is NaN if n = 0, the spread if n < 2: one opinion cannot disagree.
    """
    pieces = range(len(opinions[0].value))
    said = [[_said(opinions, s, a) for a in range(len(opinions[0].value[s]))] for s in pieces]
    return Scores(
        tuple(tuple(mean(values) for values, _ in row) for row in said),
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


def _deviation(values: Sequence[float], own: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    return math.sqrt(statistics.variance(values) + statistics.fmean(spread**2 for spread in own))
