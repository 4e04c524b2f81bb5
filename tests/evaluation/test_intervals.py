"""Intervals and paired tests over prompts, against scipy's."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from grainline.concordance import concordance
from grainline.evaluation import intervals


def drawn(count: int, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(0.3, 1) for _ in range(count)]


def test_an_interval_is_scipys() -> None:
    """One row a prompt: the percentile bootstrap of the mean. Both are drawn, so bounds differ by their own noise."""
    values = drawn(80, 0)
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    width = theirs.high - theirs.low
    found = intervals.mean_interval(values, range(80))
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.06 * width)
    assert intervals.interval(lambda i: np.mean(np.array(values)[i]), range(80)) == pytest.approx(found, abs=1e-12)


def test_rows_of_a_prompt_are_drawn_together() -> None:
    """The bootstrap of a ratio of sums over prompts, by scipy's paired resampling of (sum, rows)."""
    values, groups = drawn(90, 1), [i // 3 % 25 for i in range(90)]
    sums, sizes = np.bincount(groups, weights=values), np.bincount(groups)
    theirs = scipy.stats.bootstrap(
        (sums, sizes), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, method="percentile",
        n_resamples=9999, rng=1,
    ).confidence_interval  # fmt: skip
    found = intervals.mean_interval(values, groups)
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.06 * (theirs.high - theirs.low))
    assert intervals.interval(lambda i: np.mean(np.array(values)[i]), groups) == pytest.approx(found, abs=1e-12)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of a statistic that is no mean: how often one normal number is above another that is half a deviation lower."""
    truth, hits = scipy.stats.norm.cdf(0.5 / 2**0.5), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        right = rng.random(200) < 0.3
        said = rng.normal(size=200) + 0.5 * right
        low, high = intervals.interval(lambda i, s=said, r=right: concordance(s[i], r[i]), range(200), draws=200)
        hits += low <= truth <= high
    assert 88 <= hits <= 100


def test_what_cannot_be_taken_of_a_draw_is_left_out() -> None:
    assert all(np.isnan(intervals.interval(lambda i: float("nan"), [1, 2, 3])))


@pytest.mark.parametrize("at_once", [1, 1000, 90 * 333])
def test_numbers_do_not_depend_on_how_many_are_drawn_at_a_time(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values, others, groups = drawn(180, 4), drawn(180, 5), [i // 2 for i in range(180)]

    def measured() -> tuple[object, ...]:
        monkeypatch.setattr(intervals, "_REMEMBERED", {})
        median = intervals.interval(lambda i: float(np.median(np.array(values)[i])), groups, draws=200)
        return intervals.mean_interval(values, groups), intervals.paired(values, others, groups), median

    whole = measured()
    monkeypatch.setattr(intervals, "AT_ONCE", at_once)
    assert measured() == whole


def test_memory_does_not_grow_with_prompts_times_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 prompts, of which all draws are 8 MB; what is held at a time is 16 thousand numbers of 8 bytes, a few times
    over."""
    monkeypatch.setattr(intervals, "AT_ONCE", 2**14)
    monkeypatch.setattr(intervals, "_REMEMBERED", {})
    values = drawn(1000, 6)
    tracemalloc.start()
    try:
        intervals.paired(values, values[::-1], range(1000))
        intervals.interval(lambda i: float(i[0]), range(1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * 8 * 2**14


def test_the_exact_permutation_is_scipys() -> None:
    first, second = drawn(10, 2), drawn(10, 3)
    theirs = scipy.stats.permutation_test(
        (first, second), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    assert intervals.paired(first, second, range(10)).p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_with_one_row_a_prompt_and_no_ties_it_is_mcnemars() -> None:
    """9 pairs that only the first has right, 3 that only the second has: a binomial of 12 fair coins."""
    first, second = [1.0] * 9 + [0.0] * 3 + [1.0] * 8, [0.0] * 9 + [1.0] * 3 + [1.0] * 8
    at = intervals.paired(first, second, range(20))
    assert at.p == pytest.approx(scipy.stats.binomtest(9, 12).pvalue, abs=1e-12)
    assert at.difference == (9 - 3) / 20
    assert at.low < at.difference < at.high


def test_many_prompts_are_drawn() -> None:
    first, second = [1.0] * 90 + [0.0] * 60, [0.0] * 90 + [1.0] * 60
    assert intervals.paired(first, second, range(150)).p == pytest.approx(
        scipy.stats.binomtest(90, 150).pvalue, abs=0.006
    )


def test_prompts_and_not_rows_are_permuted() -> None:
    """Ten rows of one prompt that agree are one observation: with two prompts the least p-value is one half."""
    first, second = [1.0] * 20, [0.0] * 20
    assert intervals.paired(first, second, [i // 10 for i in range(20)]).p == 0.5
    assert intervals.paired(first, first, range(20)) == (0.0, 0.0, 0.0, 1.0)
