"""MiSS against hand-worked numbers and the figures of tests/golden/adapters.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from grainline import rooms
from grainline.adapters._seam import attach
from grainline.adapters.miss import MiSS
from grainline.errors import ModelError
from grainline.export import merged

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))


class OneLayer(nn.Module):
    """The smallest model: one matrix."""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        matrix = torch.tensor(weight)
        self.proj = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        self.proj.weight.data = matrix.clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)

    def prepare_inputs_for_generation(self, *_: Any, **__: Any) -> None:
        """Asked for by PEFT's causal wrapper."""


def adapted(weight: Any, shared: Any, **options: Any) -> Any:
    model = attach(MiSS(targets=("proj",), **options), OneLayer(weight))
    layer(model).miss_block["default"].data = torch.tensor(shared)
    return model


def layer(model: Any) -> Any:
    return model.base_model.model.proj


def test_by_hand() -> None:
    """Shards [1, 2] and [3, 4] add up to [4, 6]; D' of it is [4 - 6, 0.5 * 4]; W is zero."""
    model = adapted([[0.0] * 4] * 2, [[1.0, 0.5], [-1.0, 0.0]], rank=2)
    assert torch.equal(layer(model)(torch.tensor([[1.0, 2.0, 3.0, 4.0]])), torch.tensor([[-2.0, 2.0]]))


@pytest.mark.parametrize(
    ("name", "shared", "options"),
    [("miss_divisible", "D_r_by_out", {}), ("miss_remainder", "D_r_by_out", {}), ("miss_mini", "D", {"tile": 2})],
)
def test_goldens(name: str, shared: str, options: dict[str, Any]) -> None:
    golden = GOLDEN[name]
    model = adapted(golden["W"], golden[shared], rank=2, **options)
    assert torch.allclose(layer(model)(torch.tensor(golden["x"])), torch.tensor(golden["y"]), atol=1e-6)
    expected = torch.tensor(golden["merged_weight"])
    assert torch.allclose(merged(model).proj.weight, expected, atol=1e-6)


def test_the_change_has_the_rank_of_a_shard() -> None:
    torch.manual_seed(0)
    weight = torch.randn(7, 12).tolist()
    change = merged(adapted(weight, torch.randn(3, 7).tolist(), rank=3)).proj.weight - torch.tensor(weight)
    assert torch.linalg.matrix_rank(change, rtol=1e-5) == 3


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("miss:rank=8", 2 * 8 * (32 + 16 + 16 + 32 + 64 + 64 + 32)),  # rank x outputs of the seven linear layers
        ("miss:rank=8,tile=4", 2 * 7 * 8 * 4),
        ("miss:rank=8,targets=[q_proj],layers=[1]", 8 * 32),
    ],
)
def test_what_trains(text: str, count: int, tiny_llama: Any) -> None:
    model = attach(rooms.parse("adapters", text), tiny_llama)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_option_modules_to_save(tiny_llama: Any) -> None:
    model = attach(MiSS(modules_to_save=("lm_head",)), tiny_llama)
    assert any("lm_head.modules_to_save" in name for name, p in model.named_parameters() if p.requires_grad)


def test_option_dropout(tiny_llama: Any) -> None:
    assert MiSS().layouts == {"tree", "packed", "padded"}
    assert MiSS(dropout=0.5).layouts == {"packed", "padded"}
    dropping = attach(MiSS(dropout=0.5), tiny_llama).base_model.model.model.layers[0].self_attn.q_proj
    dropping.miss_block["default"].data.normal_()
    x = torch.ones(1, 32)
    assert not torch.equal(dropping.train()(x), dropping(x))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("miss:rank=48", r"q_proj has only 32 inputs.*Choose 32 or less"),
        ("miss:rank=8,tile=5", r"q_proj has 32 outputs, not a multiple of 5"),
        ("miss:targets=[q_prj]", "Did you mean 'q_proj'"),
        ("miss:layers=[7]", "no layer 7"),
    ],
)
def test_what_the_model_lacks(text: str, message: str, tiny_llama: Any) -> None:
    with pytest.raises(ModelError, match=message):
        rooms.parse("adapters", text).config(tiny_llama)


def test_option_rank() -> None:
    assert layer(adapted([[0.0] * 4] * 2, [[1.0, 0.5]], rank=1)).miss_r["default"] == 1


def test_option_tile(tiny_llama: Any) -> None:
    assert MiSS(tile=4).config(tiny_llama).init_weights == "mini"


def test_option_targets(tiny_llama: Any) -> None:
    assert MiSS(targets=("v_proj",)).config(tiny_llama).target_modules == {"v_proj"}


def test_option_layers(tiny_llama: Any) -> None:
    names = MiSS(targets=("v_proj",), layers=(1,)).config(tiny_llama).target_modules
    assert names == {"model.layers.1.self_attn.v_proj"}
