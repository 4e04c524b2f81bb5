"""Mo-SARA: the formula, what trains, and why it cannot be merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from grainline.adapters._seam import attach
from grainline.adapters.mo_sara import MoSARA
from grainline.errors import ModelError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))


def layer(**options: Any) -> Any:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3, bias=False, dtype=torch.float64))
    model[0].weight.data = torch.tensor(GOLDEN["mo_sara_forward"]["W"], dtype=torch.float64)
    return attach(MoSARA(targets=("0",), **options), model).base_model.model[0]


def test_forward() -> None:
    golden = GOLDEN["mo_sara_forward"]
    changed = layer(share=0.8, experts=3)
    change = changed.changes["default"]
    down, up = change.mo_sara_router
    for tensor, value in [
        (change.mo_sara_U, golden["U"]),
        (change.mo_sara_V.T, golden["V"]),
        (change.mo_sara_lambda, golden["lambda_experts"]),
        (change.mo_sara_v, golden["v"]),
        (down.weight.T, golden["W1"]),
        (up.weight.T, golden["W2"]),
    ]:
        tensor.data.copy_(torch.tensor(value))
    x = torch.tensor(golden["x"], dtype=torch.float64)
    gate = torch.softmax(change.mo_sara_router(x @ torch.tensor(golden["V"]).double()), dim=-1)
    assert torch.allclose(gate, torch.tensor(golden["gate"]).double(), atol=1e-7)
    assert torch.allclose(changed(x), torch.tensor(golden["y"]).double(), atol=1e-7)  # its figures are float32 as read


def test_singular_vectors_are_the_weights_own() -> None:
    changed = layer(share=0.8)
    U, V, W = changed.changes["default"].mo_sara_U, changed.changes["default"].mo_sara_V, changed.base_layer.weight
    U_, S, _ = torch.linalg.svd(W.detach())
    assert torch.allclose(U.T @ W @ V.T, torch.diag(S[:2]), atol=1e-6)
    assert torch.allclose(U @ U.T, U_[:, :2] @ U_[:, :2].T, atol=1e-6)


def test_tokens_choose_for_themselves(tiny_llama: Any) -> None:
    """The change of one token is the same beside any other tokens."""
    changed = attach(MoSARA(targets=("q_proj",)), tiny_llama).base_model.model.model.layers[0].self_attn.q_proj
    change = changed.changes["default"]
    torch.manual_seed(0)
    for tensor in change.parameters():
        tensor.data.normal_()
    x = torch.randn(2, 5, 32)
    assert torch.allclose(changed(x)[1, 3], changed(x[1, 3]), atol=1e-5)
    gates = torch.softmax(change.mo_sara_router(x @ change.mo_sara_V.T), dim=-1)
    assert gates.flatten(0, 1).std(dim=0).min() > 0.01  # and not the same for all


def test_merging_says_why_not(tiny_llama: Any) -> None:
    model = attach(MoSARA(), tiny_llama)
    with pytest.raises(ModelError, match="each token mixes its own singular values"):
        model.merge_adapter()
    assert not any(getattr(module, "merged_adapters", ()) for module in model.modules())


def test_option_experts(tiny_llama: Any) -> None:
    model = attach(MoSARA(experts=3), tiny_llama)
    config = model.peft_config["default"]
    outputs = {name: tiny_llama.get_submodule(name).base_layer.out_features for name in config.ranks}
    stated = sum(3 * rank + outputs[name] + rank + 3 for name, rank in config.ranks.items())
    assert sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad) == stated


def test_option_share() -> None:
    assert [layer(share=share).changes["default"].mo_sara_U.shape[1] for share in (0.5, 0.8, 0.99)] == [1, 2, 3]


def test_option_max_rank() -> None:
    assert layer(share=0.99, max_rank=2).changes["default"].mo_sara_U.shape[1] == 2


def test_option_targets(tiny_llama: Any) -> None:
    assert {name.rpartition(".")[2] for name in MoSARA(targets=("q_proj",)).config(tiny_llama).ranks} == {"q_proj"}


def test_option_layers(tiny_llama: Any) -> None:
    assert all(".layers.1." in name for name in MoSARA(layers=(1,)).config(tiny_llama).ranks)
