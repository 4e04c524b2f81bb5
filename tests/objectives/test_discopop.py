"""DiscoPOP against arithmetic, TRL's numbers, and the shape that the paper shows."""

from __future__ import annotations

import math

import pytest

from _answers import loss, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def test_by_hand() -> None:
    """z = 0.075, m = sigma(z / 0.05)."""
    z = 0.05 * 1.5
    m = 1 / (1 + math.exp(-z / 0.05))
    expected = (1 - m) * math.log1p(math.exp(-z)) + m * math.exp(-z)
    assert loss("discopop", 1.0, -0.5) == pytest.approx(expected, rel=1e-12)


def test_golden() -> None:
    matches("discopop:beta=0.1", "discopop", "trl_pairwise")


def test_it_is_not_convex() -> None:
    """From the wrong side towards z = 0 the loss rises, then it falls for good."""
    assert slopes("discopop", -40.0, 0.0)[0] < 0 < slopes("discopop", -1.0, 0.0)[0]
    assert slopes("discopop", 4.0, 0.0)[0] < 0


def test_far_from_the_margin_it_is_one_of_its_two_losses() -> None:
    assert loss("discopop", -100.0, 0.0) == pytest.approx(math.log1p(math.exp(5)), rel=1e-9)
    assert loss("discopop", 100.0, 0.0) == pytest.approx(math.exp(-5), rel=1e-9)


def test_option_beta() -> None:
    assert loss("discopop:beta=0.1", 3.0, 1.0) == pytest.approx(loss("discopop:beta=0.05", 6.0, 2.0))


def test_option_tau() -> None:
    """The share of the exponential loss is sigma(z / tau)."""
    for tau in (0.05, 0.5):
        z, m = 0.1, 1 / (1 + math.exp(-0.1 / tau))
        expected = (1 - m) * math.log1p(math.exp(-z)) + m * math.exp(-z)
        assert loss(f"discopop:tau={tau}", 2.0, 0.0) == pytest.approx(expected)
    with pytest.raises(SpecError, match="tau"):
        rooms.parse("objectives", "discopop:tau=2")
