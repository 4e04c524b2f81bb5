"""WPO against arithmetic and its promise: pairs that the policy might have written count more."""

from __future__ import annotations

import math

import pytest

from _answers import answers, loss, losses, slopes
from grainline import rooms
from grainline.errors import SpecError


def test_by_hand() -> None:
    """Means of -0.5 and +0.25 nats a token: the weight is e^(-0.5 + 0.25)."""
    found = losses("wpo", answers([-1.0], [0.5]), answers([-2.0], [1.0]))
    expected = math.exp(-0.5 + 0.25) * math.log1p(math.exp(-0.1 * 1.5))
    assert found.terms["wpo"].value.item() == pytest.approx(expected, rel=1e-12)
    assert found.log["wpo/weight"].item() == pytest.approx(math.exp(-0.25))


def test_the_gradient_is_dpos_times_the_weight() -> None:
    """Weights are constants: nothing is learnt by making them small."""
    for chosen, rejected in ((-1.0, -3.0), (-6.0, -2.0)):
        weight = math.exp((chosen + rejected) / 2)
        expected = [weight * slope for slope in slopes("dpo", chosen, rejected)]
        assert slopes("wpo", chosen, rejected) == pytest.approx(expected, rel=1e-12)


def test_unlikely_pairs_count_less() -> None:
    near, far = (losses("wpo", answers([-c], [-c]), answers([-c], [-c])).terms["wpo"].value.item() for c in (1.0, 9.0))
    assert near == pytest.approx(math.log(2) * math.exp(-1))
    assert far == pytest.approx(math.log(2) * math.exp(-9))


def test_option_beta() -> None:
    ratio = loss("wpo:beta=0.3", 2.0, 1.0) / loss("wpo:beta=0.1", 2.0, 1.0)
    assert ratio == pytest.approx(loss("dpo:beta=0.3", 2.0, 1.0) / loss("dpo:beta=0.1", 2.0, 1.0))


def test_option_alignment() -> None:
    """The aligned weights of TRL need what the forward does not supply: they are refused, not approximated."""
    with pytest.raises(SpecError, match="alignment"):
        rooms.parse("objectives", "wpo:alignment=sampled")
    assert rooms.parse("objectives", "wpo:alignment=none") == rooms.parse("objectives", "wpo")
