"""APO-zero against arithmetic, TRL's numbers, and its promise: chosen up and rejected down, each on its own."""

from __future__ import annotations

import math

import pytest

from _answers import loss, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_by_hand() -> None:
    assert loss("apo-zero", 1.0, -0.5) == pytest.approx(1 - sigmoid(0.1) + sigmoid(-0.05), rel=1e-12)


def test_golden() -> None:
    matches("apo-zero", "apo-zero", "trl_pairwise")


def test_chosen_up_and_rejected_down_without_regard_to_each_other() -> None:
    alone = 0.1 * sigmoid(0.3) * (1 - sigmoid(0.3))
    for other in (-50.0, 0.0, 7.0):
        assert slopes("apo-zero", 3.0, other)[0] == pytest.approx(-alone)
        assert slopes("apo-zero", other, 3.0)[1] == pytest.approx(alone)


def test_option_beta() -> None:
    assert loss("apo-zero:beta=0.2", 3.0, 1.0) == pytest.approx(loss("apo-zero:beta=0.1", 6.0, 2.0))
    with pytest.raises(SpecError, match="beta"):
        rooms.parse("objectives", "apo-zero:beta=0")
