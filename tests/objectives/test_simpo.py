"""SimPO against arithmetic, TRL's numbers, and its promises: no reference, a margin, and no gain from length."""

from __future__ import annotations

import math

import pytest

from _answers import answers, losses, matches
from grainline import rooms
from grainline.errors import SpecError


def value(text: str, chosen: float, rejected: float, lengths: tuple[int, int] = (2, 2)) -> float:
    return losses(text, answers([chosen], [rejected], lengths)).terms["simpo"].value.item()


def test_by_hand() -> None:
    """Means -1.5 and -2, beta 2.5, gamma 1.375: z = 1.25 - 1.375."""
    assert value("simpo", -3.0, -4.0) == pytest.approx(math.log1p(math.exp(-(2.5 * 0.5 - 1.375))), rel=1e-12)


@pytest.mark.parametrize("text", ["simpo", "simpo:beta=10.0,gamma=3.0"])
def test_golden(text: str) -> None:
    matches(text, "simpo", "trl_reference_free")


def test_no_reference_is_asked_for() -> None:
    assert rooms.parse("objectives", "simpo").needs == {"pairs"}


def test_an_answer_said_twice_is_no_better() -> None:
    assert value("simpo", -6.0, -4.0, (4, 2)) == pytest.approx(value("simpo", -3.0, -4.0, (2, 2)))


def test_option_beta() -> None:
    assert value("simpo:beta=5.0,gamma=0", -3.0, -4.0) == pytest.approx(math.log1p(math.exp(-5 * 0.5)))


def test_option_gamma() -> None:
    """A pair that is ahead by exactly the margin stands where dpo stands before training."""
    assert value("simpo:beta=2,gamma=1", -3.0, -4.0) == pytest.approx(math.log(2))
    assert value("simpo:beta=2,gamma=2", -3.0, -4.0) > math.log(2) > value("simpo:beta=2,gamma=0", -3.0, -4.0)


def test_option_gamma_as() -> None:
    """SimPO's table states gamma / beta = 0.55 where TRL is given gamma = 1.375."""
    assert value("simpo:gamma=0.55,gamma_as=ratio", -3.0, -4.0) == pytest.approx(value("simpo", -3.0, -4.0))
    with pytest.raises(SpecError, match="gamma_as"):
        rooms.parse("objectives", "simpo:gamma_as=nats")


def test_option_label_smoothing() -> None:
    plain, flipped = (math.log1p(math.exp(-z)) for z in (-0.125, 0.125))
    assert value("simpo:label_smoothing=0.2", -3.0, -4.0) == pytest.approx(0.8 * plain + 0.2 * flipped)
