"""BCO against the numbers of TRL's trainer of that name and of its bco_pair; a mean that goes on from step to step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from _token_level import GOLDEN, golden, token_level
from grainline import rooms
from grainline.errors import SpecError
from grainline.objectives.bco import BCO
from grainline.recipe.preset import presets
from grainline.types import LogProbs, Losses, Pairs, Rows

CASE, PAIR, INPUTS = GOLDEN["bco"], GOLDEN["bco_pair"]["case"], GOLDEN["dpo"]["inputs"]
LABELS = [True, True, True, False, False, False]


def answers(total: Tensor) -> LogProbs:
    token = torch.stack([0.25 * total, 0.75 * total], 1)
    return LogProbs(token, torch.ones_like(token, dtype=torch.bool), torch.ones_like(token))


def rows(labels: list[bool], weight: list[float] | None = None) -> Rows:
    return Rows(tuple(map(str, range(len(labels)))), golden(weight or [1.0] * len(labels)), torch.tensor(labels))


def losses(spec: BCO, ratios: Tensor, batch: Rows, state: dict | None = None) -> Losses:
    return spec(answers(ratios), answers(torch.zeros_like(ratios)), batch, state or {})


def test_golden_losses_and_delta() -> None:
    found = losses(BCO(), golden(CASE["chosen_logratios"] + CASE["rejected_logratios"]), rows(LABELS))
    torch.testing.assert_close(found.terms["bco"].value, golden(CASE["losses"]), rtol=1e-8, atol=0)
    assert found.state["delta"].item() == pytest.approx(CASE["delta"], rel=1e-9)
    assert found.state["delta_rows"].item() == 6


def test_golden_pairs() -> None:
    """TRL adds the two losses of a pair; this is their mean."""
    policy = golden(INPUTS["chosen_logps"] + INPUTS["rejected_logps"]).requires_grad_()
    reference = golden(INPUTS["ref_chosen_logps"] + INPUTS["ref_rejected_logps"])
    spec = BCO(shift="none")
    loss_B = spec(answers(policy), answers(reference), rows(LABELS), {}).terms["bco"].value
    torch.testing.assert_close((loss_B[:3] + loss_B[3:]).detach(), golden(PAIR["per_pair"]), rtol=1e-8, atol=0)
    (2 * loss_B.mean()).backward()
    wanted = golden(PAIR["grad_chosen_logps"] + PAIR["grad_rejected_logps"])
    torch.testing.assert_close(policy.grad, wanted, rtol=1e-8, atol=0)
    assert not spec.coupled
    assert spec.state == {}


def test_by_hand() -> None:
    """Rewards 0.2 and -0.1 after four rows of mean 0.5: delta = (4 * 0.5 + 0.1) / 6 = 0.35."""
    state = {"delta": golden(0.5), "delta_rows": golden(4.0)}
    found = losses(BCO(), golden([2.0, -1.0]), rows([True, False]), state)
    assert found.state["delta"].item() == pytest.approx(0.35)
    expected = [math.log(1 + math.exp(-(0.2 - 0.35))), math.log(1 + math.exp(-0.1 - 0.35))]
    assert found.terms["bco"].value.tolist() == pytest.approx(expected, abs=1e-12)


def test_delta_is_the_mean_of_all_rows_ever_seen_however_they_come() -> None:
    h = torch.linspace(-3, 4, 12, dtype=torch.float64)
    state: dict = {}
    for part in (h[:2], h[2:9], h[9:]):
        state = dict(losses(BCO(), part, rows([True] * len(part)), state).state)
    assert state["delta"].item() == pytest.approx(float(0.1 * h.mean()), rel=1e-12)
    loud = losses(BCO(), golden([1.0, 4.0]), rows([True, False], [2.0, 1.0])).state["delta"]
    assert loud.item() == pytest.approx(0.1 * (1 + 1 + 4) / 3)


def test_delta_has_no_gradient() -> None:
    h = golden([2.0, -1.0, 0.5]).requires_grad_()
    found = losses(BCO(), h, rows([True, False, True]))
    delta = found.state["delta"]
    assert not delta.requires_grad
    found.terms["bco"].value.sum().backward()
    sign = golden([1, -1, 1])
    torch.testing.assert_close(
        h.grad, -0.1 * sign * torch.sigmoid(-sign * (0.1 * h.detach() - delta)), rtol=1e-12, atol=0
    )


def test_pairs_have_a_margin() -> None:
    pairs = Pairs(("a",), torch.ones(1), torch.full((1,), math.nan))
    found = BCO()(answers(golden([1.0, -1.0])), answers(golden([0.0, 0.0])), pairs, {})
    assert found.margin is not None
    assert found.margin.tolist() == pytest.approx([0.2])


def test_a_pair_counts_the_mean_of_its_answers() -> None:
    """Two loud pairs are four rows with their weight: the same mean, the same delta."""
    h = golden([1.0, 2.0, -1.0, 0.5])
    pairs = Pairs(("a", "b"), golden([1.0, 3.0]), torch.full((2,), math.nan))
    found = BCO()(answers(h), answers(torch.zeros(4)), pairs, {})
    singly = losses(BCO(), h, rows([True, True, False, False], [1.0, 3.0, 1.0, 3.0]))
    loss_P, loss_B = found.terms["bco"].value, singly.terms["bco"].value
    torch.testing.assert_close(loss_P, (loss_B[:2] + loss_B[2:]) / 2)
    assert found.state["delta"] == singly.state["delta"]
    assert found.state["delta_rows"] == singly.state["delta_rows"] == 8


def test_the_preset_mpo() -> None:
    """An independent derivation's numbers where no shift is; the preset's own shift is the mean of its four rewards."""
    said = token_level()

    def loss(text: str) -> float:
        terms = rooms.parse("objectives", text)(said.policy, said.reference, said.batch, {}).terms.values()
        return sum(t.coefficient * t.value.detach().sum().item() / t.count.sum().item() for t in terms)

    mixed = presets()["mpo"].choices["objective"]
    assert mixed == "0.8*dpo + 0.4*bco + sft"
    dpo, bco, sft = (GOLDEN["mpo"][name] for name in ("sigmoid_mean", "bco_pair_mean", "sft_token_mean_nll"))
    unshifted = mixed.replace("bco", "bco:shift=none")
    assert loss(unshifted) == pytest.approx(0.8 * dpo + 0.2 * bco + sft, rel=1e-9)
    assert loss(unshifted) == pytest.approx(GOLDEN["mpo"]["total"], rel=1e-9)
    reward_B = 0.1 * (said.policy.token - said.reference.token).sum(-1).detach()
    away = (reward_B - reward_B.mean()) * golden([1, 1, -1, -1])
    shifted = 2 * torch.nn.functional.softplus(-away).mean().item()
    assert loss(mixed) == pytest.approx(0.8 * dpo + 0.2 * shifted + sft, rel=1e-9)


def test_what_cannot_stand_beside_pairs() -> None:
    with pytest.raises(SpecError, match=r"dpo \+ kto: some summands read pairs.*beside pairs choose bco"):
        rooms.parse("objectives", "dpo + kto")
    assert rooms.parse("objectives", "kto + 0.1*sft").coupled


def test_option_beta() -> None:
    half, whole = (losses(BCO(beta=b), golden([2.0]), rows([True])).state["delta"] for b in (0.1, 0.2))
    torch.testing.assert_close(2 * half, whole)


def test_option_shift() -> None:
    h = golden([3.0, 2.0])
    with_it, without = (losses(BCO(shift=s), h, rows([True, False])).terms["bco"].value for s in ("running", "none"))
    assert not torch.allclose(with_it, without)
