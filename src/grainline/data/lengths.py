"""How long texts are, and whether the longer answer wins. Exact, and as small as there are different lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Z = 1.959963984540054
"""A normal variable stays within this many standard deviations in 95 of 100 cases."""


class Lengths(NamedTuple):
    """The lengths of many texts."""

    texts: int
    mean: float
    median: int
    high: int  # 95 of 100 texts are no longer
    longest: int


class Bias(NamedTuple):
    """How often "the longer answer wins" is right; a tie counts one half."""

    unit: str  # what length was counted in: "characters" or "tokens"
    pairs: int
    ties: int
    share: float  # of the pairs, from 0 to 1
    low: float  # 95 % interval
    high: float
    chosen: float  # mean length
    rejected: float


def summary(counted: Counter[int]) -> Lengths:
    """``counted``: length -> how many texts have it."""
    count = counted.total()
    mean = sum(length * n for length, n in counted.items()) / count
    return Lengths(count, mean, quantile(counted, 0.5), quantile(counted, 0.95), max(counted))


def quantile(counted: Mapping[int, int], share: float) -> int:
    """The smallest length that at least ``share`` of the texts do not exceed.

    >>> quantile({3: 1, 5: 2, 9: 1}, 0.5)
    5
    """
    wanted, seen = share * sum(counted.values()), 0
    for length in sorted(counted):
        seen += counted[length]
        if seen >= wanted - 1e-9:
            return length
    raise AssertionError("no text was counted")


def bias(unit: str, outcomes: Sequence[int], prompts: Sequence[int], *, chosen: float, rejected: float) -> Bias:
    """``outcomes`` of each pair: 2 the chosen answer is longer, 1 a tie, 0 the rejected one is; ``prompts`` name groups
    of pairs that are not independent."""
    import numpy as np

    value = np.asarray(outcomes, dtype=np.float64) / 2
    share = float(value.mean())
    low, high = wilson(share, effective(value, np.asarray(prompts, dtype=np.uint64)))
    return Bias(unit, len(value), int((value == 0.5).sum()), share, low, high, chosen, rejected)


def effective(value: np.ndarray, groups: np.ndarray) -> float:
    """How many independent rows say as much about the mean of ``value`` as these do, whose groups hang together.

    The mean's variance is that of group totals about their expectation (the usual one for clustered samples), compared
    with ``p (1 - p) / n`` of independent rows; more than there are rows it is never.
    """
    import numpy as np

    share, count = float(value.mean()), len(value)
    _, place = np.unique(groups, return_inverse=True)
    if share in (0.0, 1.0):
        return float(place.max() + 1)
    sums, sizes = np.bincount(place, weights=value), np.bincount(place)
    variance = float(((sums - share * sizes) ** 2).sum()) / count**2
    return count if variance == 0 else min(float(count), share * (1 - share) / variance)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was seen in ``count`` independent cases."""
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)
