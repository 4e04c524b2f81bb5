"""Bone against a loop over blocks, the figures of tests/golden/adapters.json, and PEFT's own Bat layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.miss.layer import MissLinear

from grainline import rooms
from grainline.adapters._seam import attach
from grainline.adapters.bone import Bone
from grainline.adapters.bone_torch import LeanBatLinear, _Changed, changed, factored
from grainline.contract import Subject
from grainline.errors import ModelError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))
IDS = torch.tensor([[1, 5, 9, 33, 70, 12, 8, 3], [1, 7, 7, 60, 2, 90, 41, 11]])


def random(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_one_block_by_hand() -> None:
    """W = [[1, 2], [3, 4]], B = [[0, 1], [0, 0]]: W B = [[0, 1], [0, 3]], so W' = [[1, 2 + 1 + 1], [3, 4 + 3]]."""
    found = changed(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]))
    assert torch.equal(found, torch.tensor([[1.0, 4.0], [3.0, 7.0]]))


def test_block_by_block() -> None:
    weight, blocks = random(6, 8), random(3, 2, 2, seed=1)
    expected = weight.clone()
    for a in range(3):
        for b in range(4):
            block = weight[2 * a : 2 * a + 2, 2 * b : 2 * b + 2]
            expected[2 * a : 2 * a + 2, 2 * b : 2 * b + 2] = block + block @ blocks[a] + blocks[a]
    assert torch.allclose(changed(weight, blocks), expected, atol=1e-12)


def test_golden() -> None:
    golden = GOLDEN["bat"]
    weight, blocks, x = (torch.tensor(golden[key]) for key in ("W", "B_outblocks_r_r", "x"))
    assert torch.allclose(changed(weight, blocks), torch.tensor(golden["merged_weight"]), atol=1e-6)
    for y in (factored(x, weight, blocks), _Changed.apply(x, weight, blocks)):
        assert torch.allclose(y, torch.tensor(golden["y"]), atol=1e-6)


def test_both_forms_and_their_gradient() -> None:
    x, weight, blocks = random(5, 12), random(8, 12, seed=1), random(2, 4, 4, seed=2)
    assert torch.allclose(factored(x, weight, blocks), _Changed.apply(x, weight, blocks), atol=1e-12)
    assert torch.autograd.gradcheck(_Changed.apply, (x.requires_grad_(), weight, blocks.requires_grad_()))


def test_the_change_has_full_rank() -> None:
    weight, blocks = random(8, 8), random(4, 2, 2, seed=1)
    assert torch.linalg.matrix_rank(changed(weight, blocks) - weight) == 8


@pytest.mark.parametrize("tokens", [slice(None), slice(0, 1)], ids=["many", "few"])
def test_the_same_as_pefts_layer(tokens: slice, tiny_llama: Any) -> None:
    subject = Subject(Bone(block=16), tiny_llama, IDS[:1, tokens])
    model = subject.moved(size=0.1)
    layers = [module for module in model.modules() if isinstance(module, LeanBatLinear)]
    assert len(layers) == 14
    ours, our_gradients = subject.logits(model), subject.gradients(model) if tokens.stop is None else {}
    for layer in layers:
        layer.__class__ = MissLinear
    assert torch.allclose(ours, subject.logits(model), atol=2e-5)
    if our_gradients:
        theirs = subject.gradients(model)
        assert all(torch.allclose(our_gradients[name], theirs[name], atol=1e-5) for name in theirs)


def test_what_is_kept_for_the_backward_is_the_input() -> None:
    x, weight, blocks = random(64, 32).requires_grad_(), random(32, 32, seed=1), random(4, 8, 8, seed=2)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        _Changed.apply(x, weight, blocks.requires_grad_())
    assert set(kept) <= {x.data_ptr(), weight.data_ptr(), blocks.data_ptr()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bone:block=24", r"q_proj is 32 x 32, not made of blocks of 24\..*blocks of 16, and of its divisors"),
        ("bone:targets=[q_prj]", "Did you mean 'q_proj'"),
    ],
)
def test_what_does_not_fit(text: str, message: str, tiny_llama: Any) -> None:
    with pytest.raises(ModelError, match=message):
        rooms.parse("adapters", text).config(tiny_llama)


def test_option_block(tiny_llama: Any) -> None:
    model = attach(Bone(block=8), tiny_llama)
    widths = 32 + 16 + 16 + 32 + 64 + 64 + 32
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * 8 * widths  # block x outputs


def test_option_targets(tiny_llama: Any) -> None:
    assert Bone(targets=("v_proj",)).config(tiny_llama).target_modules == {"v_proj"}


def test_option_layers(tiny_llama: Any) -> None:
    names = Bone(targets=("v_proj",), layers=(1,)).config(tiny_llama).target_modules
    assert names == {"model.layers.1.self_attn.v_proj"}


def test_option_modules_to_save(tiny_llama: Any) -> None:
    assert Bone(modules_to_save=("lm_head",)).config(tiny_llama).modules_to_save == ["lm_head"]
