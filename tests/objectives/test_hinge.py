"""The hinge against arithmetic, TRL's numbers, and its promise: a pair ahead by one is left alone."""

from __future__ import annotations

import pytest

from _answers import loss, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def test_by_hand() -> None:
    assert loss("hinge:beta=0.5", 1.0, -0.5) == pytest.approx(1 - 0.5 * 1.5)
    assert loss("hinge:beta=0.5", 3.0, 0.5) == 0


@pytest.mark.parametrize("text", ["hinge", "hinge:beta=1.0"])
def test_golden(text: str) -> None:
    matches(text, "hinge", "trl_pairwise")


def test_every_pair_below_the_margin_pushes_alike_and_none_beyond_it() -> None:
    assert slopes("hinge", -30.0, 0.0) == slopes("hinge", 9.0, 0.0) == pytest.approx((-0.1, 0.1))
    assert slopes("hinge", 11.0, 0.0) == pytest.approx((0.0, 0.0))


def test_option_beta() -> None:
    """A pair is left alone at 1 / beta nats."""
    for beta in (0.1, 0.4):
        assert loss(f"hinge:beta={beta}", 1 / beta, 0.0) == pytest.approx(0, abs=1e-12)
        assert loss(f"hinge:beta={beta}", 0.5 / beta, 0.0) == pytest.approx(0.5)
    with pytest.raises(SpecError, match="beta"):
        rooms.parse("objectives", "hinge:beta=-1")
