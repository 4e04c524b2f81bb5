"""AOT against TRL's own loss code, with rows of any weight, and the stochastic dominance it asks for."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from _token_level import GOLDEN, golden
from grainline.objectives.aot import AOT, couple
from grainline.types import LogProbs, Losses, Pairs

CASES, INPUTS = GOLDEN["aot"]["cases"], GOLDEN["dpo"]["inputs"]


def answers(total: Tensor) -> LogProbs:
    token = torch.stack([0.25 * total, 0.75 * total], 1)
    return LogProbs(token, torch.ones_like(token, dtype=torch.bool), torch.ones_like(token))


def losses(spec: AOT, policy: Tensor, reference: Tensor, weight: list[float] | None = None) -> Losses:
    count = len(policy) // 2
    batch = Pairs(tuple(map(str, range(count))), golden(weight or [1.0] * count), torch.full((count,), math.nan))
    return spec(answers(policy), answers(reference), batch, {})


@pytest.mark.parametrize(
    ("case", "options"),
    [("aot", {}), ("aot_unpaired", {"variant": "unpaired"}), ("aot_eps0.1", {"label_smoothing": 0.1})],
)
def test_golden_losses_and_gradients(case: str, options: dict) -> None:
    wanted = CASES[case]
    policy = golden(INPUTS["chosen_logps"] + INPUTS["rejected_logps"]).requires_grad_()
    reference = golden(INPUTS["ref_chosen_logps"] + INPUTS["ref_rejected_logps"])
    loss_P = losses(AOT(**options), policy, reference).terms["aot"].value
    torch.testing.assert_close(
        loss_P.detach().sort().values, golden(wanted["per_pair"]).sort().values, rtol=1e-8, atol=0
    )
    loss_P.mean().backward()
    gradient = golden(wanted["grad_chosen_logps"] + wanted["grad_rejected_logps"])
    torch.testing.assert_close(policy.grad, gradient, rtol=1e-8, atol=0)


def sorted_loss(spec: AOT, policy: Tensor, reference: Tensor) -> Tensor:
    """The mean loss by TRL's lines, as they stand in its DPOTrainer (1.16): sort, subtract, link."""
    (pw, pl), (rw, rl) = policy.chunk(2), reference.chunk(2)
    if spec.variant == "paired":
        delta = (pw - pl).sort().values - (rw - rl).sort().values
    else:
        delta = (pw - rw).sort().values - (pl - rl).sort().values
    link = torch.nn.functional.logsigmoid
    return -(
        (1 - spec.label_smoothing) * link(spec.beta * delta) + spec.label_smoothing * link(-spec.beta * delta)
    ).mean()


@pytest.mark.parametrize("variant", ["paired", "unpaired"])
def test_random_inputs(variant: str) -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = (-30 * torch.rand(14, generator=generator, dtype=torch.float64) for _ in range(2))
    spec = AOT(variant=variant, beta=0.3, label_smoothing=0.05)  # type: ignore[arg-type]
    ours, theirs = policy.clone().requires_grad_(), policy.clone().requires_grad_()
    found, wanted = losses(spec, ours, reference).terms["aot"].value.mean(), sorted_loss(spec, theirs, reference)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)
    found.backward(), wanted.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_by_hand() -> None:
    """h of chosen 3 and 1, of rejected 2 and -1, sorted: 1 against -1, 3 against 2."""
    found = losses(AOT(variant="unpaired", beta=1.0), golden([3.0, 1.0, 2.0, -1.0]), torch.zeros(4).double())
    assert found.terms["aot"].value.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.exp(-2))])
    assert found.margin is not None
    assert found.margin.tolist() == [1.0, 2.0]  # pair by pair, as it is logged


@pytest.mark.parametrize("variant", ["paired", "unpaired"])
def test_a_row_of_weight_two_is_the_row_twice(variant: str) -> None:
    rng = random.Random(0)
    spec = AOT(variant=variant, beta=0.5)  # type: ignore[arg-type]
    chosen, rejected, before, also = (golden([rng.gauss(0, 3) for _ in range(4)]) for _ in range(4))
    twice = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    weight = [2.0, 1.0, 3.0, 1.0]
    one = losses(spec, torch.cat([chosen, rejected]), torch.cat([before, also]), weight).terms["aot"].value
    other = (
        losses(spec, torch.cat([chosen[twice], rejected[twice]]), torch.cat([before[twice], also[twice]]))
        .terms["aot"]
        .value
    )
    assert float((golden(weight) * one).sum()) == pytest.approx(float(other.sum()), rel=1e-9)


def test_pieces_fill_each_weight() -> None:
    weight = golden([0.5, 2.0, 0.1, 1.0])
    first, second = golden([3, 1, 4, 2]), golden([0, 9, 5, 7])
    left, right, share = couple(first, second, weight)
    filled = torch.zeros(4, dtype=torch.float64).index_add(0, left, share)
    torch.testing.assert_close(filled, torch.ones(4, dtype=torch.float64))
    width = share * weight[left]
    torch.testing.assert_close(torch.zeros(4, dtype=torch.float64).index_add(0, right, width), weight)


def test_only_distributions_count() -> None:
    """Who is chosen over whom does not matter to the unpaired loss, only what all chosen and all rejected are."""
    chosen, rejected = golden([3.0, 1.0, -2.0]), golden([0.5, -1.0, 4.0])
    zero = torch.zeros(6).double()
    spec = AOT(variant="unpaired")
    one = losses(spec, torch.cat([chosen, rejected]), zero).terms["aot"].value.sum()
    two = losses(spec, torch.cat([chosen, rejected.flip(0)]), zero).terms["aot"].value.sum()
    torch.testing.assert_close(one, two)


def test_option_beta() -> None:
    half, whole = (losses(AOT(beta=b), golden([1.0, 0.0]), golden([0.0, 0.0])).margin for b in (0.1, 0.2))
    torch.testing.assert_close(2 * half, whole)


def test_option_variant() -> None:
    h = golden([3.0, 1.0, -1.0, 2.0])  # margins 4 and -1; in order of rank 1 over -1 and 3 over 2
    values = [losses(AOT(variant=v), h, torch.zeros(4).double()).terms["aot"].value for v in ("paired", "unpaired")]
    assert not torch.allclose(*values)


def test_option_label_smoothing() -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        AOT(label_smoothing=0.5)
