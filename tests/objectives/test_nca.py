"""NCA against arithmetic, TRL's numbers, and its promise: the chosen answer's own reward has a goal."""

from __future__ import annotations

import math

import pytest

from _answers import loss, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_by_hand() -> None:
    """r_w = 0.1, r_l = -0.05."""
    expected = softplus(-0.1) + 0.5 * softplus(0.1) + 0.5 * softplus(-0.05)
    assert loss("nca", 1.0, -0.5) == pytest.approx(expected, rel=1e-12)


def test_golden() -> None:
    matches("nca", "nca", "trl_pairwise")


def test_the_chosen_reward_is_drawn_to_log_two_whatever_the_rejected_one_is() -> None:
    for rejected in (-20.0, 0.0, 20.0):
        below, at, above = (slopes("nca", (math.log(2) + d) / 0.1, rejected)[0] for d in (-0.5, 0.0, 0.5))
        assert below < 0 < above
        assert at == pytest.approx(0, abs=1e-12)
    assert slopes("nca", 0.0, 20.0)[1] > slopes("nca", 0.0, -20.0)[1] > 0


def test_option_beta() -> None:
    assert loss("nca:beta=0.2", 3.0, 1.0) == pytest.approx(loss("nca:beta=0.1", 6.0, 2.0))
    with pytest.raises(SpecError, match="beta"):
        rooms.parse("objectives", "nca:beta=0")
