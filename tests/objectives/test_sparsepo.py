"""SparsePO against the numbers of its authors' release, its mask modules, and sparsity that rises with its price."""

from __future__ import annotations

import math

import pytest
import torch

from _token_level import GOLDEN, golden, token_level
from grainline import rooms
from grainline.errors import SpecError
from grainline.objectives.sparsepo import SparsePO
from grainline.objectives.sparsepo_torch import AllLayers, LastLayer, Masks
from grainline.objectives.tdpo import TDPO
from grainline.types import Dims, LogProbs, Losses, Seen

CASES = GOLDEN["sparsepo"]["cases"]
REWARD = golden(CASES["reward_mask_chosen"] + CASES["reward_mask_rejected"])
KL = golden(CASES["kl_mask_chosen"] + CASES["kl_mask_rejected"])
DIMS = Dims(hidden=6, layers=3, vocabulary=9)


def losses(spec: SparsePO, heads: dict) -> Losses:
    given = token_level()
    return spec(given.policy, given.reference, given.batch, heads)


@pytest.mark.parametrize(
    ("case", "spec", "heads"),
    [
        (
            "independent_beta0.8",
            {"beta": 0.8, "masks": "independent", "l1_reward": 0, "l1_kl": 0},
            {"reward_mask": REWARD, "kl_mask": KL},
        ),
        ("common_beta0.8", {"beta": 0.8, "l1_reward": 0, "l1_kl": 0}, {"mask": REWARD}),
        ("common_beta0.1_l1_each_0.0005_effective", {}, {"mask": REWARD}),
        ("all_ones_beta0.1_equals_tdpo1", {"l1_reward": 0, "l1_kl": 0}, {"mask": torch.ones_like(REWARD)}),
    ],
)
def test_golden_losses(case: str, spec: dict, heads: dict) -> None:
    loss_P = losses(SparsePO(**spec), heads).terms["sparsepo"].value
    torch.testing.assert_close(loss_P.detach(), golden(CASES[case]["losses"]), rtol=1e-7, atol=0)


def test_with_masks_of_one_it_is_tdpo1_in_value_and_gradient() -> None:
    given, other = token_level(), token_level()
    mask = torch.ones_like(REWARD)
    spec = SparsePO(l1_reward=0, l1_kl=0)
    one = spec(given.policy, given.reference, given.batch, {"mask": mask}).terms["sparsepo"].value
    two = TDPO(version=1)(other.policy, other.reference, other.batch, {}).terms["tdpo"].value
    torch.testing.assert_close(one, two, rtol=1e-12, atol=0)
    one.sum().backward(), two.sum().backward()
    for side in ("chosen", "rejected"):
        torch.testing.assert_close(getattr(given, side).grad, getattr(other, side).grad, rtol=1e-9, atol=1e-14)


def test_by_hand() -> None:
    """One token each: rho 1 and -0.5, KL 0.2 and 0.6, masks 0.5 and 2 for both places; beta 0.1.
    u = 0.5 + 1 = 1.5, delta = 1.2 - 0.1 = 1.1; the norms are 2.5 each, at 0.001 halved."""
    token, reference, kl = (golden(x) for x in ([[-2.0], [-3.5]], [[-3.0], [-3.0]], [[0.2], [0.6]]))
    ones = torch.ones_like(token)
    policy = LogProbs(token, ones.bool(), ones, kl=kl)
    batch = token_level().batch
    batch = batch._replace(ids=("a",), weight=batch.weight[:1], margin=batch.margin[:1])
    found = SparsePO()(policy, LogProbs(reference, ones.bool(), ones), batch, {"mask": golden([[0.5], [2.0]])})
    expected = math.log(1 + math.exp(-0.1 * (1.5 - 1.1))) + 2 * 0.0005 * 2.5
    assert found.terms["sparsepo"].value.item() == pytest.approx(expected, abs=1e-12)
    assert found.margin is not None
    assert found.margin.item() == pytest.approx(0.15, abs=1e-12)  # dpo's, without masks


def test_golden_mask_module() -> None:
    case = CASES["mask_module"]
    hidden = torch.stack([golden(case["hidden_layer1"]), golden(case["hidden_layer2"])], 2)  # (1, T, L, H)
    module = AllLayers(Dims(hidden=3, layers=2, vocabulary=9)).double()
    with torch.no_grad():
        module.weight.copy_(golden([case["w1"], case["w2"]]))
        module.bias.copy_(golden([case["b1"], case["b2"]]))
        module.mixer.copy_(golden([case["mixer"]]))
    torch.testing.assert_close(module(hidden).detach(), golden(case["mask"]), rtol=1e-8, atol=1e-12)


def test_last_layer_by_hand() -> None:
    module = LastLayer(Dims(hidden=2, layers=2, vocabulary=9)).double()
    with torch.no_grad():
        module.score.weight.copy_(golden([[1.0, -2.0]]))
        module.score.bias.copy_(golden([0.5]))
    hidden = golden([[[[9, 9], [3, 1]], [[9, 9], [0, 1]]]])  # 3 - 2 + 0.5, and 0 - 2 + 0.5 below 0
    assert module(hidden).tolist() == [[1.5, 0.0]]


def seen(generator: torch.Generator, rows: int = 4, tokens: int = 5) -> Seen:
    hidden = torch.randn(rows, tokens, DIMS.layers, DIMS.hidden, generator=generator)
    mask = torch.arange(tokens) < torch.tensor([5, 3, 4, 1])[:rows, None]
    zeros = torch.zeros(rows, tokens)
    reference = LogProbs(zeros, mask, mask.float(), hidden=hidden.requires_grad_())
    return Seen(reference, zeros.long(), lambda h: h)


@pytest.mark.parametrize("masks", ["common", "independent"])
@pytest.mark.parametrize("module", ["simple_all", "simple_last"])
def test_modules(masks: str, module: str) -> None:
    """Never below 0, nothing outside the answers, every parameter has a gradient and the hidden states have none."""
    torch.manual_seed(0)
    spec = rooms.parse("objectives", f"sparsepo:masks={masks},module={module}")
    heads = spec.heads(DIMS)
    given = seen(torch.Generator().manual_seed(1))
    said = heads(given)
    assert tuple(said) == heads.names
    assert len(said) == {"common": 1, "independent": 2}[masks]
    for mask in said.values():
        assert (mask >= 0).all()
        assert mask[given.reference.mask].any()
        assert not mask[~given.reference.mask].any()
    sum(mask.sum() for mask in said.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in heads.parameters())
    assert given.reference.hidden is not None
    assert given.reference.hidden.grad is None


def test_no_mask_is_born_dead() -> None:
    """With the release's draw a mixer of three layers is negative in one of eight starts, and then all masks are 0."""
    dead = 0
    for number in range(100):
        torch.manual_seed(number)
        module = AllLayers(DIMS)
        hidden = torch.randn(4, 5, DIMS.layers, DIMS.hidden)
        assert module(hidden).any(), number
        with torch.no_grad():
            module.mixer.copy_(torch.randn(1, DIMS.layers) * 0.02)
        dead += not module(hidden).any()
    assert dead > 3


def trained(price: float) -> float:
    """Share of tokens that masks trained at this price silence: half of the tokens help, the others hurt a little."""
    torch.manual_seed(0)
    masks = Masks(DIMS, ("mask",), all_layers=True)
    given = seen(torch.Generator().manual_seed(1))
    good = torch.randn(DIMS.hidden, generator=torch.Generator().manual_seed(2))
    assert given.reference.hidden is not None
    pull = (given.reference.hidden.detach() @ good).sum(-1).tanh()
    sign = torch.tensor([1.0, 1.0, -1.0, -1.0])[:, None]
    policy = LogProbs(sign * pull - 5, given.reference.mask, given.reference.weight, kl=torch.zeros_like(pull))
    reference = given.reference._replace(token=torch.full_like(pull, -5))
    batch = token_level().batch
    spec = SparsePO(beta=1.0, l1_reward=price, l1_kl=0.0)
    optimizer = torch.optim.Adam(masks.parameters(), lr=0.02)
    for _ in range(150):
        loss = spec(policy, reference, batch, masks(given)).terms["sparsepo"].value.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(spec(policy, reference, batch, masks(given)).log["masks/reward/zeros"].mean())


def test_option_l1_reward() -> None:
    """A mask is sparser where it costs more, down to silence."""
    free, dear, hopeless = map(trained, (0.0, 0.2, 10.0))
    assert free < dear <= hopeless == 1.0


def test_option_l1_kl() -> None:
    heads = {"reward_mask": REWARD, "kl_mask": KL}
    one, two = (losses(SparsePO(masks="independent", l1_kl=x), heads).terms["sparsepo"].value for x in (0.0, 0.5))
    norm = 0.5 * KL.sum(-1)
    torch.testing.assert_close(two - one, norm[:2] + norm[2:], rtol=1e-9, atol=1e-12)


def test_option_beta() -> None:
    half, whole = (losses(SparsePO(beta=beta), {"mask": REWARD}).margin for beta in (0.05, 0.1))
    torch.testing.assert_close(2 * half, whole, rtol=1e-12, atol=0)


def test_option_masks() -> None:
    assert SparsePO(masks="common").heads(DIMS).names == ("mask",)
    assert SparsePO(masks="independent").heads(DIMS).names == ("reward_mask", "kl_mask")
    assert SparsePO(masks="independent", masked="kl").heads(DIMS).names == ("kl_mask",)


def test_option_module() -> None:
    assert "reference_layers" in SparsePO(module="simple_all").needs
    assert "reference_hidden" in SparsePO(module="simple_last").needs
    with pytest.raises(SpecError, match="module"):
        rooms.parse("objectives", "sparsepo:module=mlp")


def test_option_masked() -> None:
    """Where a mask does not apply, its tokens count 1 and cost nothing."""
    ones = torch.ones_like(REWARD)
    both = {"reward_mask": REWARD, "kl_mask": KL}
    for place, masks, prices in (
        ("reward", {"reward_mask": REWARD, "kl_mask": ones}, {"l1_kl": 0.0}),
        ("kl", {"reward_mask": ones, "kl_mask": KL}, {"l1_reward": 0.0}),
    ):
        found = losses(SparsePO(masks="independent", masked=place), both).terms["sparsepo"].value  # type: ignore[arg-type]
        wanted = losses(SparsePO(masks="independent", **prices), masks).terms["sparsepo"].value
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_what_is_logged() -> None:
    log = losses(SparsePO(), {"mask": REWARD}).log
    # Pair 1: 2 of 5 and 1 of 3 tokens are silent; pair 2: 1 of 3 and 1 of 4.
    assert log["masks/reward/zeros"].tolist() == pytest.approx([3 / 8, 2 / 7])
    assert log["masks/reward/mean"].tolist() == pytest.approx([(2.2 + 1.4) / 8, (1.4 + 1.6) / 7])
