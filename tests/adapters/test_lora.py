"""LoRA and its variants against hand-written formulas and the figures of tests/golden/adapters.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from grainline import rooms
from grainline.adapters._seam import attach
from grainline.adapters.lora import LoRA
from grainline.errors import ModelError, SpecError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))


class OneLayer(nn.Module):
    """The smallest model: one matrix."""

    def __init__(self, weight: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        matrix = torch.tensor(weight, dtype=dtype)
        self.proj = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=dtype)
        self.proj.weight.data = matrix.clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)

    def prepare_inputs_for_generation(self, *_: Any, **__: Any) -> None:
        """Asked for by PEFT's causal wrapper."""


def adapted(weight: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    model = attach(LoRA(targets=("proj",), **options), OneLayer(weight, dtype))
    return model.base_model.model.proj


def parts(layer: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]


def test_forward_is_the_papers_equation_3() -> None:
    layer = adapted([[1.0, 2.0], [3.0, 4.0]], rank=1, alpha=3.0)
    a, b, _ = parts(layer)
    a.data, b.data = torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0], [-1.0]])
    x = torch.tensor([[1.0, 2.0]])
    # W x = [5, 11]; A x = 0.5 * 1 - 1 * 2 = -1.5; s = 3 / 1; s B A x = 3 * -1.5 * [2, -1] = [-9, 4.5]
    assert torch.equal(layer(x), torch.tensor([[5.0 - 9.0, 11.0 + 4.5]]))


def test_default_scale_is_two() -> None:
    assert parts(adapted(torch.eye(32).tolist()))[2] == 32.0 / 16


def test_rslora_scale() -> None:
    golden = GOLDEN["lora_rslora"]
    scale = parts(adapted(golden["W"], rank=2, alpha=4.0, rslora=True))[2]
    assert scale == pytest.approx(4 / math.sqrt(2))
    assert scale == pytest.approx(golden["scaling"])


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_residual_inits(init: str) -> None:
    golden = GOLDEN[f"lora_{init}"]
    layer = adapted(golden["W"], rank=2, alpha=4.0, init=init)
    a, b, scale = parts(layer)
    assert torch.allclose(b @ a, torch.tensor(golden["BA"]), atol=1e-5)
    assert torch.allclose(layer.get_base_layer().weight, torch.tensor(golden["residual_base"]), atol=1e-5)
    assert torch.allclose(layer.get_base_layer().weight + scale * b @ a, torch.tensor(golden["W"]), atol=1e-5)


def test_pissa_takes_the_largest_singular_directions() -> None:
    golden = GOLDEN["lora_pissa"]
    layer = adapted(golden["W"], rank=2, alpha=4.0, init="pissa")
    left = torch.linalg.svdvals(layer.get_base_layer().weight.detach())
    assert torch.allclose(left, torch.tensor([golden["singular_values"][2], 0.0, 0.0]), atol=1e-5)


def test_dora() -> None:
    golden = GOLDEN["dora"]
    layer = adapted(golden["W"], torch.float64, rank=1, alpha=2.0, dora=True)
    magnitude = layer.lora_magnitude_vector["default"].weight
    assert torch.allclose(magnitude.double(), torch.tensor(golden["init_magnitude"], dtype=torch.float64), atol=1e-5)
    a, b, scale = parts(layer)
    a.data, b.data, magnitude.data = (torch.tensor(golden[key], dtype=torch.float64) for key in "ABm")
    weight = torch.tensor(golden["W"], dtype=torch.float64) + scale * b @ a
    x = torch.tensor(golden["x"], dtype=torch.float64)
    by_hand = (magnitude.unsqueeze(1) * weight / weight.norm(dim=1, keepdim=True)) @ x.T
    assert torch.allclose(layer(x), torch.tensor(golden["y"], dtype=torch.float64), atol=1e-8)
    assert torch.allclose(layer(x), by_hand.T, atol=1e-8)


def test_dropout_forbids_shared_prompts() -> None:
    assert LoRA().layouts == {"tree", "packed", "padded"}
    assert LoRA(dropout=0.1).layouts == {"packed", "padded"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, False), ({"init": "pissa"}, True), ({"init": "pissa_niter_4"}, True), ({"init": "olora"}, True),
     ({"init": "gaussian"}, False), ({"bias": "lora_only"}, True)],
)  # fmt: skip
def test_changes_base(options: dict[str, Any], expected: bool) -> None:
    assert LoRA(**options).changes_base is expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lora:init=eva", "needs activations"),
        ("lora:init=loftq", "4 bits"),
        ("lora:init=svd", "there are default, gaussian"),
        ("lora:init=pissa_niter_0", "no such init"),
        ("lora:init=orthogonal,rank=3", "even rank"),
        ("lora:init=pissa,dora=true", "cannot be shipped"),
        ("lora:init=olora,rslora=true,rank_pattern.q_proj=4", "cannot be shipped"),
        ("lora:rank=0", "greater than or equal to 1"),
    ],
)
def test_refused_options_say_why(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        rooms.parse("adapters", text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": r".*\.(query|key)"}, "matches no module.*q_proj"),
        ({"targets": "(q_proj"}, "not a regular expression"),
        ({"targets": ()}, "no module is named.*q_proj"),
        ({"targets": ("q_proj", "queries")}, "no module 'queries'"),  # PEFT is content if one name matches
        ({"layers": (0, 2)}, "no layer 2.*0 to 1"),
        ({"rank_pattern": {"q_porj": 4}}, "Did you mean 'q_proj'"),
        ({"modules_to_save": ("lm_heed",)}, "Did you mean 'lm_head'"),
    ],
)
def test_what_the_model_lacks(options: dict[str, Any], message: str, tiny_llama: Any) -> None:
    with pytest.raises(ModelError, match=message):
        LoRA(**options).config(tiny_llama)


def test_where_it_lands(tiny_llama: Any) -> None:
    model = attach(LoRA(targets=r".*\.(q|v)_proj", layers=(1,), rank=4, rank_pattern={"v_proj": 2}), tiny_llama)
    ranks = {
        name.removeprefix("base_model.model.model.layers.").partition(".lora_A")[0]: tensor.shape[0]
        for name, tensor in model.named_parameters()
        if "lora_A" in name
    }
    assert ranks == {"1.self_attn.q_proj": 4, "1.self_attn.v_proj": 2}
