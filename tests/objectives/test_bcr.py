"""Budget-controlled regularisation: inferred, so judged by arithmetic and by what the abstract promises."""

from __future__ import annotations

import math

import pytest

from _answers import GOLDEN, answers, loss, losses, slopes
from grainline import rooms
from grainline.errors import SpecError

INPUTS = GOLDEN["bcr"]["inputs"]


@pytest.mark.parametrize("text", sorted(GOLDEN["bcr"]["cases"]))
def test_the_inferred_formula(text: str) -> None:
    case, lengths = GOLDEN["bcr"]["cases"][text], [int(n) for n in INPUTS["lengths"]] * 2
    policy = answers(INPUTS["policy_chosen_logps"], [-3.0] * 3, lengths)
    found = losses(text, policy, answers(INPUTS["ref_chosen_logps"], [-3.0] * 3, lengths))
    assert list(found.terms) == ["bcr"]
    assert found.terms["bcr"].value.tolist() == pytest.approx(case["penalty"])
    assert found.log["budget/spent"].tolist() == pytest.approx(case["drop"])
    found.terms["bcr"].value.sum().backward()
    assert policy.token.grad is not None
    assert policy.token.grad[:3, 0].tolist() == pytest.approx(case["grad_policy_chosen_logp"])


@pytest.mark.parametrize("h", [-1.0, 0.0, 4.0])
def test_within_the_budget_it_is_dpo(h: float) -> None:
    assert loss("bcr", h, 2.0) == pytest.approx(loss("dpo", h, 2.0), rel=1e-12)
    assert loss("bcr", -3.0, 2.0) == pytest.approx(loss("dpo", -3.0, 2.0) + 2.0, rel=1e-12)


def descended(objective: str, steps: int = 400) -> float:
    """The chosen answer's log-ratio after descent in a model where lowering the rejected answer lowers it as well."""
    import torch

    theta = torch.zeros(2, dtype=torch.float64)
    mix = torch.tensor([[0.3, 1.0], [0.0, 2.0]], dtype=torch.float64)  # to lower the rejected lowers both
    for _ in range(steps):
        theta.requires_grad_()
        h = mix @ theta
        policy = answers([0.0], [0.0])
        found = losses(objective, policy._replace(token=h[:, None] / 2 * torch.ones(2)), answers([0.0], [0.0]))
        sum(term.coefficient * term.value.sum() for term in found.terms.values()).backward()
        theta = (theta - 0.2 * theta.grad).detach()
    return (mix @ theta)[0].item()


def test_the_chosen_answer_stays_above_its_floor() -> None:
    """DPO alone lets the chosen answer sink with the rejected one; a budget of one nat holds it there, not higher."""
    assert descended("dpo") < -2
    assert -1.5 < descended("bcr") < -0.5
    assert descended("bcr:budget=0.0") > -0.5


def test_any_base() -> None:
    """simpo + bcr:base=none: simpo's loss and the penalty, each with its own mean."""
    policy, reference = answers([-5.0], [-3.0]), answers([-2.0], [-3.0])
    both = losses("simpo + 0.5*bcr:base=none", policy, reference)
    assert [term.coefficient for term in both.terms.values()] == [1, 0.5]
    values = [term.value.item() for term in both.terms.values()]
    assert values == pytest.approx([losses("simpo", policy).terms["simpo"].value.item(), 3.0 - 1.0])


def test_option_base() -> None:
    assert slopes("bcr:base=none", 0.0, 0.0) == (0.0, 0.0)
    assert slopes("bcr", 0.0, 0.0)[0] < 0


def test_option_beta() -> None:
    assert loss("bcr:beta=0.2", 3.0, 1.0) == pytest.approx(loss("dpo:beta=0.2", 3.0, 1.0))


def test_option_budget() -> None:
    assert loss("bcr:base=none,budget=2", -3.0, 0.0) == pytest.approx(1.0)
    with pytest.raises(SpecError, match="budget"):
        rooms.parse("objectives", "bcr:budget=-1")


def test_option_weight() -> None:
    assert loss("bcr:base=none,weight=0.25", -3.0, 0.0) == pytest.approx(0.5)


def test_option_normalise() -> None:
    assert loss("bcr:base=none,normalise=mean", -3.0, 0.0) == pytest.approx(1.5 - 1)
    assert math.isclose(rooms.parse("objectives", "bcr").constant, math.log(2))
