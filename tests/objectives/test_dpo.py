"""DPO against arithmetic done by hand and against what the papers promise; test_parity_trl.py runs TRL's own code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from _answers import loss, matches
from grainline import rooms
from grainline.errors import SpecError
from grainline.objectives.dpo import DPO
from grainline.types import LogProbs, Losses, Pairs

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "objectives.json").read_text())
INPUTS = GOLDEN["dpo"]["inputs"]
LOG2 = 0.6931471805599453


def answers(chosen: list[float], rejected: list[float], dtype: torch.dtype = torch.float64) -> LogProbs:
    """Answers of two tokens whose log-probs add up to the given numbers."""
    total_B = torch.tensor([*chosen, *rejected], dtype=dtype)
    token_BT = torch.stack([0.25 * total_B, 0.75 * total_B], 1).requires_grad_()
    return LogProbs(token_BT, torch.ones_like(token_BT, dtype=torch.bool), torch.ones_like(token_BT))


def pairs(count: int) -> Pairs:
    return Pairs(tuple(map(str, range(count))), torch.ones(count), torch.full((count,), math.nan))


def losses(spec: DPO, policy: LogProbs, reference: LogProbs) -> Losses:
    return spec(policy, reference, pairs(len(policy.token) // 2), {})


def golden_losses(spec: DPO, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """(loss of each pair, gradient of their mean by each row's summed log-prob) on the golden inputs."""
    policy = answers(INPUTS["chosen_logps"], INPUTS["rejected_logps"], dtype)
    reference = answers(INPUTS["ref_chosen_logps"], INPUTS["ref_rejected_logps"], dtype)
    loss_P = losses(spec, policy, reference).terms["dpo"].value
    loss_P.mean().backward()
    assert policy.token.grad is not None
    return loss_P.detach(), policy.token.grad[:, 0]


def test_by_hand() -> None:
    """h is 1 for chosen and -0.5 for rejected, beta = 0.1: the margin is 0.15. The second pair stands still."""
    policy, reference = answers([-12, -3], [-14, -4]), answers([-13, -3], [-13.5, -4])
    found = losses(DPO(beta=0.1), policy, reference)
    expected = [math.log(1 + math.exp(-0.1 * (1.0 - -0.5))), math.log(2)]
    assert found.terms["dpo"].value.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.margin is not None
    assert found.margin.tolist() == pytest.approx([0.15, 0.0], abs=1e-12)
    assert found.log["rewards/chosen"].tolist() == pytest.approx([0.1, 0.0], abs=1e-12)
    assert found.log["rewards/rejected"].tolist() == pytest.approx([-0.05, 0.0], abs=1e-12)


@pytest.mark.parametrize("divergence", sorted(GOLDEN["dpo"]["cases"]))
def test_golden_losses_and_gradients(divergence: str) -> None:
    case = GOLDEN["dpo"]["cases"][divergence]
    loss_P, grad_B = golden_losses(DPO(beta=INPUTS["beta"], divergence=divergence, alpha=INPUTS["alpha"]))
    torch.testing.assert_close(loss_P, torch.tensor(case["per_pair"], dtype=torch.float64), rtol=1e-6, atol=0)
    expected = torch.tensor(case["grad_chosen_logps"] + case["grad_rejected_logps"], dtype=torch.float64)
    torch.testing.assert_close(grad_B, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", sorted(GOLDEN["cdpo"]["per_pair"]))
def test_golden_label_smoothing(name: str) -> None:
    loss_P, _ = golden_losses(DPO(label_smoothing=float(name)))
    expected = torch.tensor(GOLDEN["cdpo"]["per_pair"][name], dtype=torch.float64)
    torch.testing.assert_close(loss_P, expected, rtol=1e-6, atol=0)


def test_the_gradient_moves_both_answers_and_weighs_each_pair_by_its_error() -> None:
    """Rafailov et al. 2023, Section 4: the weight is beta * sigmoid(-margin), + for chosen and - for rejected."""
    policy, reference = answers([-10, -10, -10], [-10, -10, -10]), answers([-10, -40, 20], [-10, -10, -10])
    found = losses(DPO(beta=0.1), policy, reference)
    found.terms["dpo"].value.sum().backward()
    assert policy.token.grad is not None
    assert found.margin is not None
    chosen, rejected = policy.token.grad[:, 0].chunk(2)
    torch.testing.assert_close(chosen, -0.1 * torch.sigmoid(-found.margin), rtol=1e-12, atol=0)
    torch.testing.assert_close(rejected, -chosen, rtol=1e-12, atol=0)
    assert chosen[2].abs() > chosen[0].abs() > chosen[1].abs()  # wrong, undecided, right


def test_a_smaller_beta_lets_the_policy_move_further() -> None:
    """The margin h at which the push has fallen to a tenth of the start is inversely proportional to beta."""

    def push(beta: float, h: float) -> float:
        policy = answers([h], [0.0])
        losses(DPO(beta=beta), policy, answers([0.0], [0.0])).terms["dpo"].value.sum().backward()
        assert policy.token.grad is not None
        return abs(policy.token.grad[0, 0].item())

    assert push(0.1, 30.0) / push(0.1, 0.0) == pytest.approx(push(0.01, 300.0) / push(0.01, 0.0), rel=1e-9)
    assert push(0.01, 30.0) / push(0.01, 0.0) > 0.8 > push(0.1, 30.0) / push(0.1, 0.0)


@pytest.mark.parametrize("text", ["reverse_kl", "forward_kl", "js", "alpha"])
def test_rewards_are_zero_at_the_reference(text: str) -> None:
    same = answers([-3.0, -9.0], [-5.0, -1.0])
    found = losses(DPO(divergence=text, label_smoothing=0.2), same, same)
    assert found.terms["dpo"].value.tolist() == pytest.approx([LOG2, LOG2], abs=1e-12)
    assert found.log["rewards/chosen"].tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_option_normalise() -> None:
    """Length-normalised DPO against TRL's own numbers; and a longer answer with the same sum has a smaller margin."""
    matches("dpo:normalise=mean", "dpo", "trl_pairwise")
    assert loss("dpo:normalise=mean", 4.0, -2.0) == pytest.approx(loss("dpo", 2.0, -1.0))


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"label_smoothing": 0.5}, {"divergence": "kl"}, {"gamma": 1.0}])
def test_refuses_what_makes_no_sense(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DPO(**wrong)


def test_an_option_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="alpha is read with divergence=alpha only"):
        rooms.parse("objectives", "dpo:alpha=0.3")
