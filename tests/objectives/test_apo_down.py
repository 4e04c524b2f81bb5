"""APO-down against arithmetic, TRL's numbers, and its promise: both answers down, the rejected one further."""

from __future__ import annotations

import math

import pytest

from _answers import answers, loss, losses, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_by_hand() -> None:
    assert loss("apo-down", 1.0, -0.5) == pytest.approx(sigmoid(0.1) + 1 - sigmoid(0.15), rel=1e-12)


def test_golden() -> None:
    matches("apo-down", "apo-down", "trl_pairwise")


def test_the_chosen_answer_waits_for_the_rejected_one() -> None:
    chosen, rejected = slopes("apo-down", 0.0, 0.0)
    assert chosen == pytest.approx(0, abs=1e-15)
    assert rejected == pytest.approx(0.1 / 4)
    assert slopes("apo-down", 0.0, -5.0)[0] > 0


def descended(objective: str, steps: int = 60, lr: float = 100.0) -> tuple[float, float]:
    """Log-ratios (chosen, rejected) after gradient descent on them from the reference."""
    policy, reference = answers([0.0], [0.0]), answers([0.0], [0.0])
    token = policy.token.detach()
    for _ in range(steps):
        token.requires_grad_()
        losses(objective, policy._replace(token=token), reference).terms[objective].value.sum().backward()
        token = (token - lr * token.grad).detach()
    return tuple(token.sum(-1).tolist())


def test_both_answers_become_less_likely_and_the_rejected_one_more_so() -> None:
    chosen, rejected = descended("apo-down")
    assert rejected < chosen - 5
    assert chosen < -5
    up, _ = descended("apo-zero")
    assert up > 5


def test_option_beta() -> None:
    assert loss("apo-down:beta=0.2", 3.0, 1.0) == pytest.approx(loss("apo-down:beta=0.1", 6.0, 2.0))
    with pytest.raises(SpecError, match="beta"):
        rooms.parse("objectives", "apo-down:beta=0")
