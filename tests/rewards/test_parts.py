"""Bounds, Bradley and Terry, calibration: by hand, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grainline.errors import InvariantError
from grainline.rewards._parts import Platt, bradley_terry, higher, mean, platt, sigmoid, unit, windows


def test_a_score_becomes_a_span_s() -> None:
    assert unit(1, (1, 5)) == 0
    assert unit(4, (1, 5)) == 3 / 4
    assert unit(0.25, (-1, 1)) == 5 / 8
    assert math.isnan(unit(math.nan, (0, 1)))
    assert unit(5.000001, (1, 5)) == 1


@pytest.mark.parametrize("value", [5.1, 0.9, math.inf])
def test_a_score_outside_its_bounds_is_a_fault_of_the_reward(value: float) -> None:
    with pytest.raises(InvariantError, match="outside the reward's bounds, 1 to 5"):
        unit(value, (1, 5))


def test_the_mean_of_what_is_known() -> None:
    assert mean([1.0, math.nan, 4.0]) == 2.5
    assert math.isnan(mean([math.nan]))
    assert math.isnan(mean([]))


def test_bradley_and_terry() -> None:
    assert bradley_terry(1.5, 1.5) == 0.5
    assert bradley_terry(math.log(3), 0) == pytest.approx(3 / 4)
    assert bradley_terry(2, -1) + bradley_terry(-1, 2) == pytest.approx(1)
    assert bradley_terry(math.nan, 0) == 0.5
    assert (sigmoid(-1000), sigmoid(1000)) == (0, 1)


def test_platt_is_logistic_regression_of_the_target_on_what_was_said() -> None:
    """scikit-learn's with C = 4 / scale on the slope alone differs by the prior on the offset: shown at n = 4000."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    said = rng.normal(size=4000) * 3
    target = (rng.random(4000) < 1 / (1 + np.exp(-(0.4 * said - 0.7)))).astype(float)
    found = platt(said.tolist(), target.tolist())
    theirs = LogisticRegression(C=1e6, tol=1e-8).fit(said[:, None], target)
    assert found.slope == pytest.approx(float(theirs.coef_[0, 0]), abs=2e-3)
    assert found.offset == pytest.approx(float(theirs.intercept_[0]), abs=2e-3)
    assert found.slope == pytest.approx(0.4, abs=0.05)


def test_calibrated_scores_are_right_on_average_for_graded_and_weighted_targets() -> None:
    rng = np.random.default_rng(1)
    said, target = rng.normal(size=3000), rng.choice([0, 0.25, 0.5, 0.75, 1.0], size=3000)
    weight = rng.choice([0.0, 1.0, 3.0], size=3000)
    found = platt(said.tolist(), target.tolist(), weight.tolist())
    after = np.array([found(x) for x in said])
    assert weight @ after == pytest.approx(weight @ target, rel=2e-3)


def test_separated_data_have_an_answer() -> None:
    found = platt([-2.0, -1.0, 1.0, 2.0], [0.0, 0.0, 1.0, 1.0])
    assert math.isfinite(found.slope)
    assert found.slope > 1
    assert found.offset == pytest.approx(0, abs=1e-6)


def test_a_reward_that_is_wrong_on_data_held_out_says_the_mean() -> None:
    found = platt([2.0, 1.0, -1.0, -2.0] * 50, [0.0, 0.0, 0.0, 1.0] * 50)
    assert found.slope == 0
    assert found(5) == found(-5) == pytest.approx(1 / 4, abs=0.01)
    assert Platt()(0) == 0.5


def test_a_stream_that_goes_on_anywhere_is_cut_where_it_would_have_been() -> None:
    """Whatever was answered before, later windows are the same; answers to one prompt stay together."""
    items = [(f"prompt {n // 3}", n) for n in range(600)]
    whole = list(windows(items, lambda item: item[0]))
    assert [item for window in whole for item in window] == items
    assert 5 < len(whole) < 30
    ends = {window[-1][1] for window in whole}
    assert all(end % 3 == 2 for end in ends)
    for start in range(0, 600, 7):
        rest = list(windows(items[start:], lambda item: item[0]))
        assert {window[-1][1] for window in rest} == {end for end in ends if end >= start}
    assert list(windows([], lambda item: item)) == []


def test_the_higher_score_wins_and_nan_is_a_tie() -> None:
    assert [higher(*both) for both in ((2, 1), (1, 2), (1, 1), (math.nan, 1))] == [1, 0, 0.5, 0.5]
