"""The parts, each against the formula its docstring states."""

from __future__ import annotations

import math

import pytest
import torch

from grainline.objectives import _parts as parts
from grainline.types import LogProbs, Pairs, Rows


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


def test_per_token_divides_by_the_weights_and_leaves_silence_alone() -> None:
    answers = logprobs([[-1.0, -2.0, -4.0], [-3.0, -5.0, 0.0], [-3.0, 0.0, 0.0]], [[1, 0.5, 2], [1, -1, 0], [0, 0, 0]])
    assert parts.per_token(parts.summed(answers), answers).tolist() == [-10 / 3.5, 2 / 2, 0.0]


def test_hinge_and_square() -> None:
    margin = torch.tensor([-1.0, 0.5, 3.0])
    assert parts.hinge(margin).tolist() == [2.0, 0.5, 0.0]
    assert parts.square(margin, 1.0).tolist() == [4.0, 0.25, 4.0]


@pytest.mark.parametrize("alpha", [-0.5, 0.25, 1.0])
def test_box_cox_by_its_formula_and_its_slope(alpha: float) -> None:
    logprob = torch.tensor([-3.0, -0.5, -0.01], dtype=torch.float64, requires_grad=True)
    found = parts.box_cox(logprob, alpha)
    expected = [(1 - math.exp(x) ** -alpha) / alpha for x in (-3.0, -0.5, -0.01)]
    assert found.tolist() == pytest.approx(expected, rel=1e-8)
    found.sum().backward()
    assert logprob.grad is not None
    assert logprob.grad.tolist() == pytest.approx([math.exp(-alpha * x) for x in (-3.0, -0.5, -0.01)], rel=1e-12)


def test_box_cox_keeps_its_digits_near_zero_where_the_plain_form_loses_them() -> None:
    logprob = torch.tensor([-1.5], dtype=torch.float32)
    plain = (1 - logprob.exp() ** -1e-6) / 1e-6
    assert parts.box_cox(logprob, 1e-6).item() == pytest.approx(-1.5 - 1.5**2 / 2 * 1e-6, rel=1e-7)
    assert plain.item() != pytest.approx(-1.5, rel=1e-2)
    assert torch.equal(parts.box_cox(logprob, 0.0), logprob)
    assert parts.box_cox(torch.tensor([-1e4]), 0.25).isfinite().all()


def test_target_margin_in_both_units() -> None:
    assert parts.target_margin(1.375, "margin", 2.5) == 1.375
    assert parts.target_margin(0.55, "ratio", 2.5) == pytest.approx(1.375)


def test_likelihood_is_of_the_desirable_answers() -> None:
    answers = logprobs([[-1.0, -2.0], [-3.0, 0.0]], [[1.0, 2.0], [1.0, 0.0]])
    pair = parts.likelihood(answers, Pairs(("a",), torch.ones(1), torch.ones(1)), 0.5)
    assert (pair.value.tolist(), pair.count.tolist(), pair.coefficient) == ([5.0], [3.0], 0.5)
    rows = parts.likelihood(answers, Rows(("a", "b"), torch.ones(2), torch.tensor([False, True])))
    assert (rows.value.tolist(), rows.count.tolist()) == ([0.0, 3.0], [0.0, 1.0])


def test_contrast_logs_what_it_contrasts_and_keeps_no_gradient() -> None:
    reward = torch.tensor([1.0, 2.0, 0.5, 3.0], requires_grad=True)
    found = parts.contrast("mine", reward[:2], reward)
    assert found.terms["mine"].count.tolist() == [1, 1]
    assert found.margin is not None
    assert (found.margin.tolist(), found.margin.requires_grad) == ([0.5, -1.0], False)
    assert {name: value.tolist() for name, value in found.log.items()} == {
        "rewards/chosen": [1.0, 2.0],
        "rewards/rejected": [0.5, 3.0],
    }


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
