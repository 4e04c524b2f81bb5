"""Temporal decay against the paper's equation, the released code's numbers, and the promise: early tokens move more."""

from __future__ import annotations

import pytest
import torch

from _answers import GOLDEN, pairs
from grainline import rooms
from grainline.errors import SpecError
from grainline.recipe import presets
from grainline.types import Answer, AnswerTokens, Example, LogProbs, Record

CASES = GOLDEN["d2po"]["cases"]
TOKENS = GOLDEN["token_level"]["per_token"]


def weights(text: str, *lengths: int, prompt: int = 2) -> list[tuple[float, ...]]:
    tokens = tuple(AnswerTokens((5,) * n, ((0, 1),) * n, (7.0,) * n) for n in lengths)
    record = Record("r", "Why?", tuple(Answer("x") for _ in lengths))
    example = Example(record, (1,) * prompt, tokens)
    return [answer.weight for answer in rooms.parse("supervision", text)(example).answers]


def test_by_hand() -> None:
    assert weights("decay:gamma=0.5", 3)[0] == (0.5, 0.25, 0.125)
    assert weights("decay:gamma=0.5,offset=equation", 3)[0] == (1.0, 0.5, 0.25)
    assert weights("decay:gamma=0.5,offset=prompt", 2, prompt=3)[0] == (0.125, 0.0625)


def golden_batch(text: str) -> tuple[LogProbs, LogProbs]:
    """The golden's two pairs with the weights of a decay; prompts of 2 and 3 tokens stand before the answers."""
    found = []
    for who in ("policy", "ref"):
        token = torch.tensor(TOKENS[f"{who}_chosen"] + TOKENS[f"{who}_rejected"], dtype=torch.float64)
        mask = torch.tensor(TOKENS["mask_chosen"] + TOKENS["mask_rejected"], dtype=torch.bool)
        weight = torch.zeros_like(token)
        for row, prompt in enumerate((2, 3, 2, 3)):
            weight[row][mask[row]] = torch.tensor(weights(text, int(mask[row].sum()), prompt=prompt)[0]).double()
        found.append(LogProbs(token, mask, weight))
    return found[0], found[1]


@pytest.mark.parametrize("text", sorted(CASES))
def test_golden(text: str) -> None:
    """D2PO: decay with dpo, value by value. Its released sums, too, where the golden has them."""
    policy, reference = golden_batch(text)
    found = rooms.parse("objectives", "dpo")(policy, reference, pairs(2), {}).terms["dpo"].value
    assert found.tolist() == pytest.approx(CASES[text]["losses_beta_0_1"], rel=1e-6)
    if "policy_chosen" in CASES[text]:
        sums = (policy.token * policy.weight).sum(-1).tolist()
        assert sums == pytest.approx(CASES[text]["policy_chosen"] + CASES[text]["policy_rejected"], rel=1e-6)
    if "weights_chosen" in CASES[text]:
        expected = torch.tensor(CASES[text]["weights_chosen"])
        torch.testing.assert_close(policy.weight[:2].float(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("text", ["decay", "decay:gamma=0.9", "decay:gamma=1.0"])
def test_golden_without_a_reference(text: str) -> None:
    """Eq. 11, the preset d2po-reference-free."""
    choices = presets()["d2po-reference-free"].choices
    assert choices["supervision"] == "decay"
    objective = rooms.parse("objectives", choices["objective"])
    assert "reference" not in objective.needs
    found = objective(golden_batch(text)[0], None, pairs(2), {}).terms
    assert found["cpo"].value.tolist() == pytest.approx(CASES[text]["losses_ref_free_eq11_beta_0_1"], rel=1e-6)
    assert found["sft"].coefficient == 0


def test_early_tokens_move_more() -> None:
    """The push on each token is its weight times the pair's, so it falls along the answer by gamma."""
    policy, reference = golden_batch("decay:gamma=0.9")
    token = policy.token.clone().requires_grad_()
    loss = rooms.parse("objectives", "dpo")(policy._replace(token=token), reference, pairs(2), {}).terms["dpo"].value
    loss.sum().backward()
    push = token.grad[0][policy.mask[0]].abs()
    assert (push[1:] / push[:-1]).tolist() == pytest.approx([0.9] * 4)


def test_option_gamma() -> None:
    """gamma = 1 is sequence, bit for bit."""
    assert weights("decay:gamma=1.0", 4)[0] == (1.0,) * 4
    assert weights("decay:gamma=1.1,offset=equation", 2)[0] == (1.0, 1.1)  # later tokens louder
    with pytest.raises(SpecError, match="gamma"):
        rooms.parse("supervision", "decay:gamma=0")
    with pytest.raises(SpecError, match="as a share of the answer"):
        rooms.parse("supervision", "decay:gamma=1.1,shape=head")


def test_option_shape() -> None:
    assert weights("decay:gamma=0.5,shape=head", 4)[0] == (1, 1, 0, 0)
    assert weights("decay:gamma=0.5,shape=linear", 4)[0] == (1, 0.5, 0, 0)
    assert weights("decay:gamma=1.0,shape=power", 4)[0] == pytest.approx((1, 1 / 2, 1 / 3, 1 / 4))
    assert weights("decay:gamma=0.3,shape=head", 10)[0] == (1,) * 3 + (0,) * 7  # 0.3 * 10 is 3, whatever floats say


def test_option_offset() -> None:
    found = [weights(f"decay:offset={offset}", 1, prompt=5)[0][0] for offset in ("equation", "code", "prompt")]
    assert found == pytest.approx([1.0, 0.98, 0.98**5])
    with pytest.raises(SpecError, match="offset is read with shape=exponential only"):
        rooms.parse("supervision", "decay:shape=head,offset=prompt")
