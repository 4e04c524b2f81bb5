"""WPO against arithmetic and its promise: pairs that the policy might have written count more."""

from __future__ import annotations

import math

import pytest
import torch

from _answers import GOLDEN, answers, loss, losses, slopes
from _token_level import logits, token_level
from grainline.objectives.wpo import WPO
from grainline.types import LogProbs


def said(chosen: float, rejected: float, concentration: float) -> LogProbs:
    """Two answers of two tokens, whose log-probs add up to these; all distributions are equally concentrated."""
    found = answers([chosen], [rejected])
    return found._replace(concentration=torch.full_like(found.token, concentration).detach())


def weight(text: str, *of: float) -> float:
    return losses(text, said(*of), answers([0.0], [0.0])).log["wpo/weight"].item()


def test_golden() -> None:
    """An independent derivation's weights and losses, of logits by formula."""
    found = token_level()
    squares = [logits(f"policy_{side}")[:, :-1].softmax(-1).square().sum(-1).log() for side in ("chosen", "rejected")]
    policy = found.policy._replace(concentration=torch.cat(squares) * found.policy.mask)
    case = GOLDEN["wpo"]["cases"]
    told = WPO()(policy, found.reference, found.batch, {})
    assert told.terms["wpo"].value.tolist() == pytest.approx(case["losses_beta_0_1"], rel=1e-8)
    wanted = [c * r for c, r in zip(case["weight_chosen"], case["weight_rejected"], strict=True)]
    assert told.log["wpo/weight"].tolist() == pytest.approx(wanted, rel=1e-8)


def test_by_hand() -> None:
    """Means of -0.5 and +0.25 nats a token, of distributions whose two draws agree once in e: 1 nat more each."""
    found = losses("wpo", said(-1.0, 0.5, -1.0), answers([-2.0], [1.0]))
    expected = math.exp(-0.5 + 0.25 + 2) * math.log1p(math.exp(-0.1 * 1.5))
    assert found.terms["wpo"].value.item() == pytest.approx(expected, rel=1e-12)
    assert found.log["wpo/weight"].item() == pytest.approx(math.exp(1.75))


def test_text_that_could_be_anything_counts_like_text_that_could_be_one_thing() -> None:
    """The alignment's promise: of V equally likely tokens or of one certain token, samples of the policy count 1."""
    for V in (1, 7, 50_000):
        surprise = -2 * math.log(V)  # of an answer's two tokens
        assert weight("wpo", surprise, surprise, -math.log(V)) == pytest.approx(1)
        assert weight("wpo:alignment=none", surprise, surprise, -math.log(V)) == pytest.approx(V**-2)


def test_the_gradient_is_dpos_times_the_weight() -> None:
    """Weights are constants: nothing is learnt by making them small."""
    for chosen, rejected in ((-1.0, -3.0), (-6.0, -2.0)):
        for text, gain in (("wpo:alignment=none", 0.0), ("wpo", 0.7)):
            policy = said(chosen, rejected, -gain)
            losses(text, policy, answers([0.0], [0.0])).terms["wpo"].value.sum().backward()
            assert policy.token.grad is not None
            expected = [math.exp((chosen + rejected) / 2 + 2 * gain) * one for one in slopes("dpo", chosen, rejected)]
            assert policy.token.grad[:, 0].tolist() == pytest.approx(expected, rel=1e-12)


def test_unlikely_pairs_count_less() -> None:
    for text in ("wpo", "wpo:alignment=none"):
        near, far = (losses(text, said(-c, -c, 0.0), answers([-c], [-c])).terms["wpo"].value.item() for c in (1.0, 9.0))
        assert near == pytest.approx(math.log(2) * math.exp(-1))
        assert far == pytest.approx(math.log(2) * math.exp(-9))


def test_option_beta() -> None:
    ratio = loss("wpo:beta=0.3,alignment=none", 2.0, 1.0) / loss("wpo:beta=0.1,alignment=none", 2.0, 1.0)
    assert ratio == pytest.approx(loss("dpo:beta=0.3", 2.0, 1.0) / loss("dpo:beta=0.1", 2.0, 1.0))


def test_option_alignment() -> None:
    assert WPO().needs == {"pairs", "reference", "concentration"}
    assert WPO(alignment="none").needs == {"pairs", "reference"}
    with pytest.raises(ValueError, match="state the need 'concentration'"):
        losses("wpo", answers([-1.0], [-1.0]), answers([-1.0], [-1.0]))
