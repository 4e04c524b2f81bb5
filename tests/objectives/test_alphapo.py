"""AlphaPO against arithmetic, TRL's numbers, simpo as its limit, and what alpha is for."""

from __future__ import annotations

import math

import pytest

from _answers import answers, losses, matches
from grainline import rooms
from grainline.errors import SpecError


def value(text: str, chosen: float, rejected: float) -> float:
    return losses(text, answers([chosen], [rejected])).terms["alphapo"].value.item()


def test_by_hand() -> None:
    """alpha = 1: the reward is beta (1 - 1 / p)."""
    z = 2.5 * ((1 - math.exp(1.5)) - (1 - math.exp(2.0))) - 0.25
    assert value("alphapo:alpha=1.0", -3.0, -4.0) == pytest.approx(math.log1p(math.exp(-z)), rel=1e-12)


@pytest.mark.parametrize("text", ["alphapo", "alphapo:gamma=0.1", "alphapo:alpha=-0.5", "alphapo:alpha=0.000001"])
def test_golden(text: str) -> None:
    matches(text, "alphapo", "trl_reference_free")


@pytest.mark.parametrize("alpha", ["0", "0.00000001", "-0.00000001"])
def test_alpha_zero_is_simpo(alpha: str) -> None:
    policy = answers([-3.0, -5.0], [-4.0, -1.0])
    simpo = losses("simpo:gamma=0.25", policy).terms["simpo"].value
    found = losses(f"alphapo:alpha={alpha}", policy).terms["alphapo"].value
    assert found.tolist() == pytest.approx(simpo.tolist(), rel=1e-6)


def push(alpha: float) -> float:
    """By how much more the unlikely rejected answer is moved than the likely chosen one."""
    policy = answers([-1.0], [-6.0])
    losses(f"alphapo:alpha={alpha}", policy).terms["alphapo"].value.sum().backward()
    assert policy.token.grad is not None
    chosen, rejected = policy.token.grad[:, 0].tolist()
    return -rejected / chosen


def test_option_alpha() -> None:
    """The slope is p^-alpha: an answer that is unlikely moves more with alpha > 0, less with alpha < 0. So alpha
    decides from which answer probability is moved, which is likelihood displacement."""
    for alpha in (-0.5, 0.0, 0.25):
        assert push(alpha) == pytest.approx(math.exp(alpha * (3.0 - 0.5)))
    assert push(-0.5) < push(0.0) == 1 < push(0.25)


def test_option_beta() -> None:
    assert value("alphapo:alpha=0,beta=5.0,gamma=0", -3.0, -4.0) == pytest.approx(math.log1p(math.exp(-5 * 0.5)))


def test_option_gamma() -> None:
    assert value("alphapo:gamma=1", -3.0, -4.0) > value("alphapo:gamma=0", -3.0, -4.0)


def test_option_gamma_as() -> None:
    assert value("alphapo:gamma=0.1,gamma_as=ratio", -3.0, -4.0) == pytest.approx(value("alphapo", -3.0, -4.0))


def test_option_label_smoothing() -> None:
    z = 2.5 * (math.expm1(0.5) - math.expm1(0.375)) / 0.25 - 0.25
    plain, flipped = math.log1p(math.exp(-z)), math.log1p(math.exp(z))
    assert value("alphapo:label_smoothing=0.2", -3.0, -4.0) == pytest.approx(0.8 * plain + 0.2 * flipped)
    with pytest.raises(SpecError, match="label_smoothing"):
        rooms.parse("objectives", "alphapo:label_smoothing=0.5")
