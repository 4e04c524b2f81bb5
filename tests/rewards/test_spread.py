"""Several opinions of the same pieces: means and deviations by hand, and numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from grainline.errors import DataError
from grainline.rewards._seam import Scores
from grainline.rewards._spread import mean_and_spread, separation

NAN = math.nan


def test_mean_and_deviation_over_n_minus_1() -> None:
    found = mean_and_spread([Scores(((1.0, 5.0),)), Scores(((2.0, 5.0),)), Scores(((6.0, 5.0),))])
    assert found.opinions == (((1.0, 5.0),), ((2.0, 5.0),), ((6.0, 5.0),))
    assert found.value == ((3.0, 5.0),)
    assert found.spread == ((pytest.approx(math.sqrt((4 + 1 + 9) / 2)), 0.0),)


def test_own_spreads_add_as_variances() -> None:
    """Total variance: of the means, and the mean of the variances; None and NaN state none."""
    found = mean_and_spread([Scores(((1.0,),), ((0.3,),)), Scores(((2.0,),)), Scores(((3.0,),), ((NAN,),))])
    assert found.spread == ((pytest.approx(math.sqrt(1.0 + 0.09 / 3)),),)


def test_total_variance_is_that_of_draws_from_the_members() -> None:
    """What the formula stands for: draw a member, then a score as that member is unsure of it."""
    draw = np.random.default_rng(0)
    means, spreads = draw.normal(size=40), draw.uniform(0.5, 2, size=40)
    found = mean_and_spread([Scores(((m,),), ((s,),)) for m, s in zip(means, spreads, strict=True)])
    drawn = draw.normal(np.repeat(means, 20_000), np.repeat(spreads, 20_000))
    # The members are a sample of possible members: over n - 1 the first part is 40/39 as large.
    expected = drawn.var() + means.var() / 39
    assert found.spread is not None
    assert found.spread[0][0] ** 2 == pytest.approx(expected, rel=0.01)


def test_nan_takes_part_in_nothing() -> None:
    rng = np.random.default_rng(1)
    stack = rng.normal(size=(5, 3, 2))
    stack[rng.random(stack.shape) < 0.4] = NAN
    found = mean_and_spread([Scores(tuple(map(tuple, each.tolist()))) for each in stack])
    counts = (~np.isnan(stack)).sum(0)
    assert counts.min() < 2 < counts.max()
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
        mean, spread = np.nanmean(stack, 0), np.nanstd(stack, 0, ddof=1)
    np.testing.assert_allclose(found.value, mean)
    np.testing.assert_allclose(found.spread, np.where(counts < 2, NAN, spread))


def test_one_opinion_cannot_disagree_and_none_is_no_opinion() -> None:
    found = mean_and_spread([Scores(((2.0, NAN),), ((1.0, NAN),)), Scores(((NAN, NAN),))])
    assert found.value[0][0] == 2.0
    assert math.isnan(found.value[0][1])
    assert found.spread is not None
    assert all(map(math.isnan, found.spread[0]))


def test_separation_by_hand() -> None:
    """Of the six pairs of a marked row and another, 3 1/2 are in order."""
    found = separation([3.0, 1.0, 2.0, 1.0, 0.0], [True, True, False, False, False], draws=10)
    assert found.auc == pytest.approx((3 + 1.5) / 6)


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    marked = rng.random(rows) < 0.3
    return np.round(rng.normal(size=rows) + 0.5 * marked, 1), marked  # rounded: with ties


def test_separation_is_sklearns_auc() -> None:
    number, marked = drawn(400, 0)
    assert separation(number, marked, draws=10).auc == pytest.approx(roc_auc_score(marked, number), abs=1e-12)
    assert separation(-number, ~marked, draws=10).auc == pytest.approx(roc_auc_score(marked, number), abs=1e-12)
    with_nan = np.append(number, [NAN, NAN])
    assert separation(with_nan, np.append(marked, [True, False]), draws=10).auc == separation(number, marked).auc


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth = 0.5 * (1 + math.erf(0.5 / 2))  # normal numbers, half a deviation apart
    hits = 0
    for seed in range(100):
        _, low, high = separation(*drawn(200, seed), draws=200)
        hits += low <= truth <= high
    assert 88 <= hits <= 100


def test_rows_of_a_group_are_one_witness() -> None:
    """Each row four times is no more evidence than each row once."""
    number, marked = drawn(150, 1)
    once = separation(number, marked)
    groups = np.tile(np.arange(150), 4).tolist()
    grouped = separation(np.tile(number, 4), np.tile(marked, 4), groups)
    deceived = separation(np.tile(number, 4), np.tile(marked, 4))
    assert grouped == once
    assert deceived.high - deceived.low < 0.6 * (once.high - once.low)


def test_separation_needs_both_kinds() -> None:
    for marked in ([True, True], [False, False]):
        with pytest.raises(DataError, match="marked rows and others"):
            separation([1.0, 2.0], marked)
