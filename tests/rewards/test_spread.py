"""Several opinions of the same pieces: means and deviations by hand, and numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grainline.rewards._seam import Scores
from grainline.rewards._spread import mean_and_spread

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
