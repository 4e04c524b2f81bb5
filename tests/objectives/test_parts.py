"""The parts, each against the formula its docstring states."""

from __future__ import annotations

import math

import pytest
import torch

from grainline.objectives import _parts as parts
from grainline.types import LogProbs


def logprobs(token: list[list[float]], weight: list[list[float]]) -> LogProbs:
    weight_BT = torch.tensor(weight, dtype=torch.float64)
    return LogProbs(torch.tensor(token, dtype=torch.float64), weight_BT != 0, weight_BT)


def test_sums_weigh_each_token() -> None:
    answers = logprobs([[-1.0, -2.0, -4.0], [-3.0, -5.0, 0.0]], [[1.0, 0.5, 2.0], [1.0, -1.0, 0.0]])
    assert parts.summed(answers).tolist() == [-1 - 0.5 * 2 - 2 * 4, -3 + 5]


def test_log_ratio_is_zero_at_the_reference_and_learns_nothing_of_it() -> None:
    reference = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    policy = torch.tensor([[-1.5, -1.0]], requires_grad=True)
    mask, weight = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[1.0, 3.0]])
    h_B = parts.log_ratio(LogProbs(policy, mask, weight), LogProbs(reference, mask, weight))
    assert h_B.tolist() == [-0.5 + 3 * 1.0]
    h_B.sum().backward()
    assert policy.grad is not None
    assert policy.grad.tolist() == weight.tolist()
    assert reference.grad is None


def test_halves_are_chosen_then_rejected() -> None:
    chosen, rejected = parts.halves(torch.arange(6))
    assert (chosen.tolist(), rejected.tolist()) == ([0, 1, 2], [3, 4, 5])


@pytest.mark.parametrize("e", [0.0, 0.1, 0.4])
def test_logistic_is_the_cross_entropy_with_a_share_of_wrong_labels(e: float) -> None:
    for margin in (-3.0, 0.0, 0.7):
        right = 1 / (1 + math.exp(-margin))
        expected = -(1 - e) * math.log(right) - e * math.log(1 - right)
        assert parts.logistic(torch.tensor(margin, dtype=torch.float64), e).item() == pytest.approx(expected, abs=1e-12)


def test_smoothed_logistic_is_lowest_where_the_model_believes_the_share() -> None:
    """The point of cDPO: with a share e of wrong labels the margin stops at log((1 - e) / e), it does not grow."""
    margin = torch.tensor(math.log(0.9 / 0.1), dtype=torch.float64, requires_grad=True)
    parts.logistic(margin, 0.1).backward()
    assert margin.grad is not None
    assert margin.grad.item() == pytest.approx(0.0, abs=1e-12)


FUNCTIONS = {
    "reverse_kl": lambda u, a: u * math.log(u),
    "forward_kl": lambda u, a: -math.log(u),
    "js": lambda u, a: u * math.log(u) - (u + 1) * math.log((u + 1) / 2),
    # 1 - a is the exponent of the paper's Table 1
    "alpha": lambda u, a: (u**a - a * u - (1 - a)) / ((1 - a) * -a),
}
"""f of each divergence: D_f(policy || reference) = E_reference[f(policy / reference)]."""


@pytest.mark.parametrize("divergence", parts.DIVERGENCES)
@pytest.mark.parametrize("a", [0.25, 0.5, 0.75])
def test_divergence_score_is_the_derivative_of_f_up_to_a_constant(divergence: str, a: float) -> None:
    def slope(h: float) -> float:
        u, step = math.exp(h), 1e-5
        return (FUNCTIONS[divergence](u + step, a) - FUNCTIONS[divergence](u - step, a)) / (2 * step)

    h = torch.tensor([-1.2, 0.0, 0.4, 1.5], dtype=torch.float64)
    score = parts.divergence_score(h, divergence, a)
    expected = torch.tensor([slope(x) for x in h.tolist()], dtype=torch.float64)
    torch.testing.assert_close(score - score[1], expected - expected[1], rtol=1e-6, atol=1e-6)


def test_divergence_score_grows_with_the_ratio() -> None:
    h = torch.linspace(-20, 20, 81, dtype=torch.float64)
    for divergence in parts.DIVERGENCES:
        assert (parts.divergence_score(h, divergence, 0.5).diff() > 0).all(), divergence


def test_alpha_one_is_the_reverse_kl_and_is_reached_smoothly() -> None:
    h = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    assert torch.equal(parts.divergence_score(h, "alpha", 1.0), h)
    near = parts.divergence_score(h, "alpha", 1 + 1e-5)
    torch.testing.assert_close(near - near[1], h, rtol=1e-4, atol=1e-4)


def test_alpha_zero_is_the_forward_kl() -> None:
    h = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(
        parts.divergence_score(h, "alpha", 0.0), parts.divergence_score(h, "forward_kl", 0.5), rtol=1e-12, atol=0
    )
