"""SPPO with hard labels against arithmetic, TRL's numbers, and its promise: a target for each answer."""

from __future__ import annotations

import pytest

from _answers import loss, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def test_by_hand() -> None:
    """The targets are +5 and -5 nats at beta = 0.1."""
    assert loss("sppo-hard", 1.0, -0.5) == pytest.approx((1 - 5) ** 2 + (-0.5 + 5) ** 2)


def test_golden() -> None:
    matches("sppo-hard", "sppo-hard", "trl_pairwise")


def test_both_may_not_sink_together() -> None:
    """DPO is content with 0 against -10 nats and with -100 against -110; here the chosen answer is called back."""
    assert loss("dpo", -100.0, -110.0) == pytest.approx(loss("dpo", 0.0, -10.0))
    assert loss("sppo-hard", -100.0, -110.0) > 100 * loss("sppo-hard", 0.0, -10.0)
    assert slopes("sppo-hard", -100.0, -110.0)[1] < 0  # even the rejected one


def test_option_beta() -> None:
    for beta in (0.1, 0.01):
        assert loss(f"sppo-hard:beta={beta}", 0.5 / beta, -0.5 / beta) == pytest.approx(0, abs=1e-12)
    with pytest.raises(SpecError, match="beta"):
        rooms.parse("objectives", "sppo-hard:beta=0")
    assert rooms.parse("objectives", "sppo-hard").constant == pytest.approx(2 * 5**2)
