"""How often the better of two is said to be better: by hand, and as scikit-learn and scipy count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import somersd
from sklearn.metrics import roc_auc_score

from grainline.concordance import concordance

NO = math.nan


def test_by_hand() -> None:
    """(.9 over .5 | 1 over .5) right, (.9, .5 | 1, 0) right, (.9, .7 | 1, .5) right, (.5, .5 | .5, 0) a tie,
    (.7, .5 | .5, 0) right; the two of 1/2 are not compared."""
    assert concordance([0.9, 0.5, 0.5, 0.7], [1.0, 0.5, 0.0, 0.5]) == pytest.approx(4.5 / 5)


@pytest.mark.parametrize("seed", range(3))
def test_of_two_kinds_it_is_the_area_under_the_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = rng.random(400) < 0.3
    said = np.round(rng.normal(size=400) + 0.5 * right, 1)  # rounded: with ties
    assert concordance(said, right) == pytest.approx(roc_auc_score(right, said), abs=1e-12)
    assert concordance(-said, ~right) == pytest.approx(roc_auc_score(right, said), abs=1e-12)


def test_of_graded_values_it_is_somers_d() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(0, 5, 300)
    said = np.round(rng.normal(size=300) + 0.4 * right, 1)
    assert concordance(said, right) == pytest.approx((somersd(right, said).statistic + 1) / 2, abs=1e-12)


def test_what_is_unknown_is_left_out_and_nothing_to_compare_is_no_figure() -> None:
    assert concordance([1.0, NO, 2.0, 0.0], [0.0, 1.0, 1.0, NO]) == 1
    assert math.isnan(concordance([1.0, 2.0], [1.0, 1.0]))
    assert math.isnan(concordance([NO], [1.0]))
    assert math.isnan(concordance([], []))
