"""Imitation with a sign against arithmetic, FIGA's release, and its promise: unlearning stops by itself."""

from __future__ import annotations

import pytest

from _answers import GOLDEN, answers, losses
from grainline import rooms
from grainline.errors import SpecError


def test_by_hand() -> None:
    """Chosen tokens at -1, rejected at -0.2: (1 + 1) - (0.2 + 0.2) over four tokens."""
    found = losses("signed-sft", answers([-2.0], [-0.4])).terms["signed-sft"]
    assert (found.value.item(), found.count.item()) == (pytest.approx(2 - 0.4), 4)


def test_the_release() -> None:
    """FIGA's own code on its example, without and with a rejected token that is still likely: its divisor too."""
    import torch

    figa = GOLDEN["figa"]
    for case, active in (({}, 3), (figa["case_confident_negative"], 4)):
        nll = torch.tensor(figa["per_token_ce_shifted"], dtype=torch.float64)
        marks = torch.tensor([figa["mask_revised"][1:], figa["mask_raw"][1:]])
        marks[1] = (marks[1] == -1) * 0.5
        if case:
            nll[1, 3] = case["ce_of_that_token"]
        policy = answers([0.0], [0.0], [7, 7])._replace(token=-nll, weight=marks.double())
        found = losses("signed-sft", policy).terms["signed-sft"]
        assert found.value.item() / active == pytest.approx(case.get("loss", figa["loss"]), rel=1e-8)
        assert found.count.item() == active
        assert losses("signed-sft:divisor=marked", policy).terms["signed-sft"].count.item() == 4


def test_option_divisor() -> None:
    """Chosen tokens at -1, rejected at -0.2 and at -1, which is left alone: two chosen, one or two rejected."""
    policy = answers([-2.0], [-0.4])
    policy.token.data[1] = policy.token.new_tensor([-0.2, -1.0])
    counts = [losses(f"signed-sft:divisor={d}", policy).terms["signed-sft"].count.item() for d in ("active", "marked")]
    assert counts == [3, 4]


def test_a_rejected_token_is_left_alone_once_it_is_unlikely() -> None:
    policy = answers([-2.0, -2.0], [-1.0, -1.4])  # 0.5 and 0.7 nats a token
    losses("signed-sft", policy).terms["signed-sft"].value.sum().backward()
    assert policy.token.grad is not None
    assert policy.token.grad.tolist() == [[-1, -1], [-1, -1], [1, 1], [0, 0]]


def test_only_chosen_tokens_is_sft() -> None:
    policy = answers([-2.0, -6.0], [-1.0, -1.0])
    weight = policy.weight.clone()
    weight[2:] = 0
    ours = losses("signed-sft", policy._replace(weight=weight)).terms["signed-sft"]
    sft = losses("sft", policy).terms["sft"]
    assert ours.value.tolist() == sft.value.tolist()
    assert ours.count.tolist() == sft.count.tolist()


def test_option_until() -> None:
    values = [
        losses(f"signed-sft:until={u}", answers([-2.0], [-1.4])).terms["signed-sft"].value.item() for u in (0.6, 0.8)
    ]
    assert values == pytest.approx([2.0, 2.0 - 1.4])
    with pytest.raises(SpecError, match="until"):
        rooms.parse("objectives", "signed-sft:until=-1")
