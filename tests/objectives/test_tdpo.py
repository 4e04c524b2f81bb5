"""TDPO against the numbers of its authors' release, by hand, and the two things it promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from _token_level import GOLDEN, TokenLevel, golden, token_level
from grainline import rooms
from grainline.errors import SpecError
from grainline.objectives.dpo import DPO
from grainline.objectives.tdpo import TDPO
from grainline.types import LogProbs, Losses, Pairs

CASES = GOLDEN["tdpo"]["cases"]


def losses(spec: object, given: TokenLevel) -> Losses:
    return spec(given.policy, given.reference, given.batch, {})  # type: ignore[operator]


def answers(total: list[float], kl: list[float]) -> LogProbs:
    """Answers of two tokens with the given sums."""
    token, divergence = (golden([[0.25 * x, 0.75 * x] for x in sums]).requires_grad_() for sums in (total, kl))
    return LogProbs(token, token.bool() | True, torch.ones_like(token), kl=divergence)


def one(policy: LogProbs, reference: LogProbs, **options: object) -> Losses:
    batch = Pairs(("a",), torch.ones(1), torch.full((1,), math.nan))
    return TDPO(**options)(policy, reference, batch, {})


def test_golden_inputs_are_those_of_the_release() -> None:
    given, per = token_level(), GOLDEN["token_level"]["per_token"]
    wide = per["policy_chosen"] + per["policy_rejected"], per["kl_ref_policy_chosen"] + per["kl_ref_policy_rejected"]
    for found, wanted in zip((given.policy.token, given.policy.kl), wide, strict=True):
        torch.testing.assert_close(found.detach(), golden(wanted), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("tdpo1_beta0.1", {"version": 1}),
        ("tdpo2_beta0.1_alpha0.5", {}),
        ("tdpo2_beta0.1_alpha1.0", {"alpha": 1.0}),
    ],
)
def test_golden_losses_and_gradients(case: str, options: dict) -> None:
    given, wanted = token_level(), CASES[case]
    found = losses(TDPO(beta=0.1, **options), given)
    loss_P = found.terms["tdpo"].value
    torch.testing.assert_close(loss_P.detach(), golden(wanted["losses"]), rtol=1e-7, atol=0)
    loss_P.mean().backward()
    for side in ("chosen", "rejected"):
        norm = getattr(given, side).grad.norm().item()
        assert norm == pytest.approx(wanted[f"grad_norm_policy_{side}_logits"], rel=1e-7)
    torch.testing.assert_close(found.log["kl/chosen"], golden(CASES["chosen_seqkl"]), rtol=1e-8, atol=0)
    if options:  # the release logs beta (h + D) in both versions, whatever alpha is
        for side in ("chosen", "rejected"):
            reward = found.log[f"rewards/{side}"]
            torch.testing.assert_close(reward, golden(wanted[f"{side}_rewards"]), rtol=1e-7, atol=0)


def test_by_hand() -> None:
    """h is 1 and -0.5, D is 0.2 and 0.6, beta 0.1: the margins are 0.1 (1.5 - 0.4) and 0.1 (1.5 - 0.5 * 0.4)."""
    policy, reference = answers([-12, -14], [0.2, 0.6]), answers([-13, -13.5], [0, 0])
    for options, margin in {"1": 0.11, "2": 0.13}.items():
        found = one(policy, reference, version=int(options))
        assert found.terms["tdpo"].value.item() == pytest.approx(math.log(1 + math.exp(-margin)), abs=1e-12)
        assert found.margin is not None
        assert found.margin.item() == pytest.approx(margin, abs=1e-12)


def slopes(**options: object) -> tuple[Tensor, Tensor]:
    """d loss / d D of the chosen and of the rejected answer, by the sigmoid's weight."""
    policy = answers([-12, -14], [0.2, 0.6])
    found = one(policy, answers([-13, -13.5], [0, 0]), **options)
    found.terms["tdpo"].value.sum().backward()
    assert policy.kl is not None
    assert policy.kl.grad is not None
    assert found.margin is not None
    return (policy.kl.grad[:, 0] / torch.sigmoid(-found.margin)).unbind()


def test_who_pays_for_drifting() -> None:
    """The rejected answer's drift raises the loss; the chosen one's lowers it in version 1 and is left alone in 2."""
    chosen, rejected = slopes(version=1)
    assert (chosen.item(), rejected.item()) == pytest.approx((-0.1, 0.1), rel=1e-12)
    chosen, rejected = slopes(version=2, alpha=0.5)
    assert (chosen.item(), rejected.item()) == pytest.approx((0.0, 0.05), abs=1e-12)


def test_alpha_zero_is_dpo_and_alpha_one_has_the_value_of_version_one() -> None:
    given = token_level()
    for options, other in (({"alpha": 0.0}, DPO()), ({"alpha": 1.0}, TDPO(version=1))):
        found, wanted = losses(TDPO(**options), given), losses(other, given)
        value = next(iter(wanted.terms.values())).value
        torch.testing.assert_close(found.terms["tdpo"].value, value, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.margin, wanted.margin, rtol=1e-12, atol=0)


def test_option_beta() -> None:
    given = token_level()
    half, whole = (losses(TDPO(beta=beta), given).margin for beta in (0.05, 0.1))
    torch.testing.assert_close(2 * half, whole, rtol=1e-12, atol=0)


def test_option_version() -> None:
    given = token_level()
    one, two = (losses(TDPO(version=v), given).terms["tdpo"].value for v in (1, 2))
    assert not torch.allclose(one, two)


def test_option_alpha() -> None:
    with pytest.raises(SpecError, match="alpha is read with version=2 only"):
        rooms.parse("objectives", "tdpo:version=1,alpha=0.3")
    with pytest.raises(SpecError, match="alpha"):
        rooms.parse("objectives", "tdpo:alpha=-0.3")
