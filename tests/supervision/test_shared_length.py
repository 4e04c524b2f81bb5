"""The shared length against the golden of LD-DPO, and its promise: a longer answer gains less by length."""

from __future__ import annotations

import pytest
import torch

from _answers import GOLDEN, pairs
from grainline import rooms
from grainline.errors import SpecError
from grainline.recipe import presets
from grainline.types import Answer, AnswerTokens, Example, LogProbs, Record

TOKENS = GOLDEN["token_level"]["per_token"]


def weights(text: str, *lengths: int) -> list[tuple[float, ...]]:
    tokens = tuple(AnswerTokens((5,) * n, ((0, 1),) * n, (7.0,) * n) for n in lengths)
    example = Example(Record("r", "Why?", tuple(Answer("x") for _ in lengths)), (1,), tokens)
    return [answer.weight for answer in rooms.parse("supervision", text)(example).answers]


def test_by_hand() -> None:
    assert weights("shared-length", 2, 4) == [(1, 1), (1, 1, 0.5, 0.5)]
    assert weights("shared-length", 3, 1) == [(1, 0.5, 0.5), (1,)]


@pytest.mark.parametrize("text", sorted(GOLDEN["ld_dpo"]["cases"]))
def test_golden(text: str) -> None:
    """LD-DPO, the preset: this and dpo."""
    assert dict(presets()["ld-dpo"].choices) == {"supervision": "shared-length", "objective": "dpo"}
    mask = torch.tensor(TOKENS["mask_chosen"] + TOKENS["mask_rejected"], dtype=torch.bool)
    weight = torch.zeros(mask.shape, dtype=torch.float64)
    for pair in range(2):
        rows = (pair, pair + 2)
        for row, one in zip(rows, weights(text, *(int(mask[r].sum()) for r in rows)), strict=True):
            weight[row][mask[row]] = torch.tensor(one).double()
    policy, reference = (
        LogProbs(torch.tensor(TOKENS[f"{who}_chosen"] + TOKENS[f"{who}_rejected"]).double(), mask, weight)
        for who in ("policy", "ref")
    )
    found = rooms.parse("objectives", "dpo")(policy, reference, pairs(2), {}).terms["dpo"].value
    assert found.tolist() == pytest.approx(GOLDEN["ld_dpo"]["cases"][text]["losses_beta_0_1"], rel=1e-6)


def test_option_tail() -> None:
    assert weights("shared-length:tail=0", 1, 3)[1] == (1, 0, 0)
    assert weights("shared-length:tail=1", 1, 3)[1] == (1, 1, 1)
    with pytest.raises(SpecError, match="tail"):
        rooms.parse("supervision", "shared-length:tail=1.5")
