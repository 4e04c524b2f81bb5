"""ORPO against arithmetic, TRL's numbers, and its promise: odds and likelihood at once, no reference."""

from __future__ import annotations

import math

import pytest

from _answers import GOLDEN, answers, losses
from grainline import rooms
from grainline.errors import SpecError


def test_by_hand() -> None:
    """p = e^-0.5 and e^-1: log-odds log(p / (1 - p))."""
    odds = [math.log(p / (1 - p)) for p in (math.exp(-0.5), math.exp(-1.0))]
    found = losses("orpo:beta=0.2", answers([-1.0], [-2.0]))
    assert found.terms["orpo"].value.item() == pytest.approx(0.2 * math.log1p(math.exp(odds[1] - odds[0])), rel=1e-12)
    assert found.terms["sft"].value.item() == pytest.approx(1.0)
    assert found.terms["sft"].count.item() == 2


def test_golden() -> None:
    stated, cases = GOLDEN["orpo"]["inputs"], GOLDEN["orpo"]["cases"]
    lengths = stated["chosen_lengths"] + stated["rejected_lengths"]
    policy = answers(stated["chosen_logps_sum"], stated["rejected_logps_sum"], lengths)
    found = losses("orpo", policy)
    expected = [-loss for loss in cases["beta_logsigmoid_fp64"]]
    assert found.terms["orpo"].value.tolist() == pytest.approx(expected, rel=1e-8)
    assert found.margin is not None
    assert (found.margin / 0.1).tolist() == pytest.approx(cases["log_odds_fp64"], rel=1e-8)


def test_the_likelihood_term_holds_the_chosen_answer() -> None:
    """Even where the odds say nothing more, the chosen answer is imitated; the rejected one has no term of its own."""
    policy = answers([-0.1], [-200.0])
    found = losses("orpo", policy)
    (found.terms["sft"].value / found.terms["sft"].count + found.terms["orpo"].value).sum().backward()
    assert policy.token.grad is not None
    assert policy.token.grad[0].tolist() == pytest.approx([-0.5, -0.5], abs=1e-3)
    assert policy.token.grad[1].tolist() == pytest.approx([0, 0], abs=1e-3)


def test_a_certain_answer_has_finite_odds() -> None:
    found = losses("orpo", answers([0.0], [-1.0]))
    assert math.isfinite(found.terms["orpo"].value.item())


def test_option_beta() -> None:
    one, two = (losses(f"orpo:beta={b}", answers([-1.0], [-2.0])).terms["orpo"].value.item() for b in (0.1, 0.2))
    assert two == pytest.approx(2 * one)
    with pytest.raises(SpecError, match="beta"):
        rooms.parse("objectives", "orpo:beta=0")
