"""How sure a mean is: intervals and paired tests over prompts, since rows of one prompt are not independent.

*Interval*: percentile bootstrap (Efron 1979). Prompts are drawn with replacement, all rows of a prompt with it, and the
mean over rows is taken again, 1000 times; the bounds are its 2.5 % and 97.5 % quantiles.

*Paired test* of two models on the same rows: prompts are the pairs' units. The interval of the difference is the same
bootstrap on row differences; the p-value is a sign-flip permutation test (Fisher 1935): under the hypothesis that both
models are equally good, each prompt's sum of differences is as likely with the other sign. McNemar's exact test is this
test for one row a prompt and no ties; the permutation also knows of ties (a half) and of prompts with several rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

DRAWS = 1000
"""Resamples of an interval."""
FLIPS = 10_000
"""Draws of a permutation test; its p-value is never below 1 / (FLIPS + 1)."""
EXACT = 14
"""Prompts up to which all 2^n signs are counted instead."""
AT_ONCE = 2**22
"""Prompts drawn at a time, in all resamples together: 32 MiB. How many changes no number."""


class Paired(NamedTuple):
    """How much better the first of two is on the same rows."""

    difference: float
    low: float
    high: float
    p: float  # two-sided


def mean_interval(values: Sequence[float], groups: Sequence[Hashable], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of ``values``, whose rows belong to ``groups`` (prompts)."""
    import numpy as np

    sums, sizes = _by_group(np.asarray(values, dtype=float), groups)
    means = [sums[draws].sum(1) / sizes[draws].sum(1) for draws in _draws(len(sums), seed)]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def interval(
    statistic: Callable[[Any], float], groups: Sequence[Hashable], *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """The same for any ``statistic`` of row numbers, for one that is no mean; draws it cannot be taken of (NaN) are
    left out."""
    import numpy as np

    place: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        place.setdefault(group, []).append(row)
    members = [np.array(rows) for rows in place.values()]
    drawn = islice(chain.from_iterable(_draws(len(members), seed)), draws)
    found = np.array([statistic(np.concatenate([members[g] for g in chosen])) for chosen in drawn])
    found = found[~np.isnan(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def paired(first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable], *, seed: int = 0) -> Paired:
    """``first`` minus ``second``, row by row."""
    import numpy as np

    apart = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    low, high = mean_interval(apart, groups, seed=seed)
    sums, _ = _by_group(apart, groups)
    return Paired(float(apart.mean()), low, high, _sign_flips(sums, seed))


def _sign_flips(sums: Any, seed: int) -> float:
    """Two-sided p-value of the sum of ``sums`` among all choices of their signs (or many drawn ones)."""
    import numpy as np

    sums = sums[sums != 0]  # without a difference, a sign changes nothing
    if not len(sums):
        return 1.0
    reached = abs(sums.sum()) * (1 - 1e-12)
    if len(sums) <= EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float((np.abs(signs @ sums) >= reached).mean())
    rng, beyond = np.random.default_rng(seed), 0
    for some in _chunks(FLIPS, len(sums)):
        signs = rng.integers(2, size=(some, len(sums))) * 2 - 1
        beyond += int((np.abs(signs @ sums) >= reached).sum())
    return (beyond + 1) / (FLIPS + 1)


def _by_group(values: Any, groups: Sequence[Hashable]) -> tuple[Any, Any]:
    """Sum and number of rows of each group, in order of appearance."""
    import numpy as np

    place: dict[Hashable, int] = {}
    index = np.array([place.setdefault(group, len(place)) for group in groups])
    return np.bincount(index, weights=values), np.bincount(index)


_REMEMBERED: dict[tuple[int, int], Any] = {}


def _draws(groups: int, seed: int) -> Iterator[Any]:
    """(some, groups) which groups each resample holds, a chunk of the DRAWS at a time. Most metrics ask for the same
    ones, one after another: those of few groups are one chunk, and remembered."""
    import numpy as np

    key = (groups, seed)
    if key in _REMEMBERED:
        yield _REMEMBERED[key]
        return
    rng = np.random.default_rng(seed)
    for some in _chunks(DRAWS, groups):
        drawn = rng.integers(groups, size=(some, groups))
        if some == DRAWS:
            _REMEMBERED.clear()
            _REMEMBERED[key] = drawn
        yield drawn


def _chunks(number: int, each: int) -> Iterator[int]:
    """``number`` draws of ``each``, in parts that hold :data:`AT_ONCE` at most: how many there are in each part."""
    most = max(1, AT_ONCE // each)
    return (min(most, number - start) for start in range(0, number, most))
