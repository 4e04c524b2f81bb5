"""Robust DPO against arithmetic, TRL's numbers, and its promise: unbiased under flipped labels."""

from __future__ import annotations

import math

import pytest

from _answers import loss, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def dpo(z: float) -> float:
    return math.log1p(math.exp(-z))


def test_by_hand() -> None:
    """e = 0.2, z = 0.15: (0.8 L(z) - 0.2 L(-z)) / 0.6."""
    assert loss("robust:label_smoothing=0.2", 1.0, -0.5) == pytest.approx((0.8 * dpo(0.15) - 0.2 * dpo(-0.15)) / 0.6)


def test_golden() -> None:
    matches("robust", "robust", "trl_pairwise")


@pytest.mark.parametrize("e", [0.05, 0.1, 0.4])
@pytest.mark.parametrize("h", [-8.0, 0.0, 20.0])
def test_its_mean_over_flipped_labels_is_dpo_on_true_ones(e: float, h: float) -> None:
    text = f"robust:label_smoothing={e}"
    assert (1 - e) * loss(text, h, 0.0) + e * loss(text, 0.0, h) == pytest.approx(loss("dpo", h, 0.0), rel=1e-9)


def test_it_never_stops_where_cdpo_does() -> None:
    h = math.log(9) / 0.1  # cDPO's best margin for a tenth of wrong labels
    assert slopes("dpo:label_smoothing=0.1", h, 0.0)[0] == pytest.approx(0, abs=1e-12)
    assert slopes("robust", h, 0.0)[0] < -1e-3
    assert loss("robust", 100.0, 0.0) < 0


def test_option_beta() -> None:
    assert loss("robust:beta=0.2", 3.0, 1.0) == pytest.approx(loss("robust:beta=0.1", 6.0, 2.0))


def test_option_label_smoothing() -> None:
    assert loss("robust:label_smoothing=0", 3.0, 1.0) == pytest.approx(loss("dpo", 3.0, 1.0))
    with pytest.raises(SpecError, match="label_smoothing"):
        rooms.parse("objectives", "robust:label_smoothing=0.5")
