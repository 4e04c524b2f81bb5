"""DNPO: the golden numbers of the inferred formula, each player's own gradient, and noise that chases the margin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from _token_level import GOLDEN, golden
from grainline import rooms
from grainline.errors import SpecError
from grainline.objectives.dnpo import DNPO
from grainline.objectives.dnpo_torch import Noise, noisy_logprob
from grainline.objectives.dpo import DPO
from grainline.types import Dims, LogProbs, Losses, Pairs, Seen

CASE = GOLDEN["dnpo"]["cases"]


def said(chosen: float, rejected: list[float]) -> LogProbs:
    """A chosen answer whose log-probs sum to ``chosen``, and a rejected one, of two tokens."""
    token = golden([[chosen / 2, chosen / 2], rejected]).requires_grad_()
    return LogProbs(token, torch.ones_like(token, dtype=torch.bool), torch.ones_like(token))


PAIR = Pairs(("a",), torch.ones(1, dtype=torch.float64), torch.full((1,), math.nan))


def total(found: Losses) -> Tensor:
    return sum(t.coefficient * t.value.sum() / t.count.sum() for t in found.terms.values())  # type: ignore[return-value]


def test_golden_value_and_gradients() -> None:
    logits, hidden, epsilon = (golden(CASE[name]) for name in ("ref_logits_negative", "hidden", "epsilon"))
    target = torch.tensor(CASE["target"])
    weight, bias = golden(CASE["W_sigma"]).requires_grad_(), golden(CASE["b_sigma"]).requires_grad_()
    sigma = hidden @ weight + bias
    torch.testing.assert_close(sigma.detach(), golden(CASE["sigma"]), rtol=1e-9, atol=1e-12)
    noisy, clean = noisy_logprob(logits, sigma, epsilon, target), noisy_logprob(logits, 0, 0, target)
    assert noisy.sum().item() == pytest.approx(CASE["noisy_ref_neg_logp"], rel=1e-8)
    assert clean.sum().item() == pytest.approx(CASE["clean_ref_neg_logp"], rel=1e-8)
    nothing = torch.zeros_like(noisy)
    heads = {
        "shift": torch.stack([nothing, noisy - clean]),
        "variance": torch.stack([nothing, sigma.square().mean(-1)]),
    }
    policy = said(CASE["policy_pos"], [CASE["policy_neg"] / 2] * 2)
    reference = said(CASE["ref_pos"], clean.tolist())
    found = DNPO(beta=CASE["lam"], alpha=CASE["alpha"])(policy, reference, PAIR, heads)
    assert found.log["dnpo/model"].item() == pytest.approx(CASE["model_term"], rel=1e-8)
    assert total(found).item() == pytest.approx(CASE["total"], rel=1e-8)
    total(found).backward()
    assert policy.token.grad is not None
    assert policy.token.grad[:, 0].tolist() == pytest.approx(
        [CASE["grad_policy_pos"], CASE["grad_policy_neg"]], rel=1e-8
    )
    torch.testing.assert_close(weight.grad, golden(CASE["grad_W_sigma"]), rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(bias.grad, golden(CASE["grad_b_sigma"]), rtol=1e-7, atol=1e-12)


def slopes(turn: float | None, updates: str) -> tuple[Tensor, Tensor, Losses]:
    """Gradients by the policy's log-probs and by the noise."""
    policy, reference = said(-2.0, [-1.0, -0.8]), said(-2.5, [-1.5, -1.6])
    shift = golden([[0, 0], [0.3, -0.1]]).requires_grad_()
    variance = golden([[0, 0], [0.02, 0.04]]).requires_grad_()
    heads = {"shift": shift, "variance": variance} | ({} if turn is None else {"turn": golden(turn)})
    found = DNPO(updates=updates)(policy, reference, PAIR, heads)  # type: ignore[arg-type]
    total(found).backward()
    assert policy.token.grad is not None
    assert shift.grad is not None
    return policy.token.grad, shift.grad, found


def test_each_player_moves_its_own_way() -> None:
    """M = h_w - h_l + shift = 0.5 - 1.3 + 0.2: the policy is pushed to enlarge it, the noise to make it smaller."""
    policy, noise, found = slopes(None, "joint")
    push = 0.1 / (1 + math.exp(0.1 * (0.5 - 1.3 + 0.2)))
    assert policy.flatten().tolist() == pytest.approx([-push, -push, push, push], rel=1e-9)
    assert noise[1].tolist() == pytest.approx([push, push], rel=1e-9)  # so descent lowers the shift
    assert found.log["dnpo/noise_nats"].item() == pytest.approx(0.2)
    assert found.margin is not None
    assert found.margin.item() == pytest.approx(0.1 * (0.5 - 1.3), rel=1e-9)  # without noise


def test_option_updates() -> None:
    """In turns only one of them moves; the counter goes on, and the joint gradients are those of both turns."""
    together = slopes(None, "joint")
    model, noise = slopes(0.0, "alternating"), slopes(1.0, "alternating")
    assert torch.equal(model[0], together[0])
    assert not model[1].any()
    assert torch.equal(noise[1], together[1])
    assert not noise[0].any()
    assert [x[2].state["turn"].item() for x in (model, noise)] == [1.0, 2.0]
    assert DNPO(updates="alternating").state == {"turn": 0.0}
    assert DNPO().state == {}


def test_before_there_is_noise_the_policy_is_pushed_as_by_dpo() -> None:
    policy, reference = said(-2.0, [-1.0, -0.8]), said(-2.5, [-1.5, -1.6])
    total(DNPO(beta=0.3)(policy, reference, PAIR, {})).backward()
    other = said(-2.0, [-1.0, -0.8])
    DPO(beta=0.3)(other, reference, PAIR, {}).terms["dpo"].value.sum().backward()
    torch.testing.assert_close(policy.token.grad, other.token.grad, rtol=1e-12, atol=0)


def test_option_alpha() -> None:
    found = slopes(None, "joint")[2].terms["noise"]
    assert (found.value.item(), found.count.item(), found.coefficient) == pytest.approx((0.06, 2.0, 0.1))
    with pytest.raises(SpecError, match="alpha"):
        rooms.parse("objectives", "dnpo:alpha=0")


def test_option_beta() -> None:
    half, whole = (DNPO(beta=b)(said(-2, [-1, -1]), said(-3, [-2, -1]), PAIR, {}).margin for b in (0.05, 0.1))
    torch.testing.assert_close(2 * half, whole, rtol=1e-12, atol=0)


def noise_over(rows: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Tensor], Noise, Seen]:
    """A head with something to say of four rows, the last two of them rejected, ``rows`` positions at a time."""
    torch.manual_seed(0)
    monkeypatch.setattr("grainline.objectives.dnpo_torch.LOGITS_AT_ONCE", 7 * rows)
    head = Noise(Dims(hidden=3, layers=1, vocabulary=7))
    head.spread.weight.data.normal_()
    mask = torch.arange(4) < torch.tensor([4, 2, 3, 1])[:, None]
    unembed = torch.randn(3, 7)
    reference = LogProbs(torch.zeros(4, 4), mask, mask.float(), hidden=torch.randn(4, 4, 1, 3))
    seen = Seen(reference, torch.randint(7, (4, 4)), lambda h: h @ unembed)
    torch.manual_seed(5)
    return head(seen), head, seen


def test_noise_speaks_of_rejected_answers_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found, head, seen = noise_over(100, monkeypatch)
    for value in found.values():
        assert not value[:2].any()
        assert value[2:][seen.reference.mask[2:]].all()
        assert not value[~seen.reference.mask].any()
    assert not any(value.any() for value in head.eval()(seen).values())
    assert not any(value.any() for value in Noise(Dims(3, 1, 7))(seen).values())  # at the start
    found["shift"].sum().backward()
    assert head.spread.weight.grad is not None
    assert head.spread.weight.grad.any()


def test_chunks_are_drawn_again_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward computes each chunk anew: its noise must be the one of the forward."""
    found, head, seen = noise_over(2, monkeypatch)
    direction = torch.randn_like(head.spread.bias)
    (slope,) = torch.autograd.grad(found["shift"].sum(), head.spread.bias)
    values = []
    for step in (1e-2, -1e-2):
        with torch.no_grad():
            head.spread.bias.add_(step * direction)
            torch.manual_seed(5)
            values.append(head(seen)["shift"].sum().item())
            head.spread.bias.sub_(step * direction)
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(slope @ direction), rel=1e-2)
