"""SARA: ranks from the spectrum, the formula, and its plain LoRA of the same rank."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from grainline import rooms
from grainline.adapters._seam import attach
from grainline.adapters._spectral import rank_reaching, singular_values
from grainline.adapters.lora import LoRA
from grainline.adapters.sara import SARA

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))


def layer(**options: Any) -> Any:
    golden = GOLDEN["sara_forward"]
    model = torch.nn.Sequential(torch.nn.Linear(4, 3, bias=False, dtype=torch.float64))
    model[0].weight.data = torch.tensor(golden["W"], dtype=torch.float64)
    return attach(SARA(targets=("0",), **options), model).base_model.model[0]


def test_forward_and_merge() -> None:
    golden = {key: torch.tensor(GOLDEN["sara_forward"][key]).double() for key in ("U", "V", "lam", "x", "y", "delta_W")}
    changed = layer(share=0.8)  # of 3.93, 2.06, 0.90 (tests/golden: lora_pissa): two reach 87 %
    change = changed.changes["default"]
    assert change.sara_lambda.shape == (2,)
    change.sara_U.data, change.sara_V.data, change.sara_lambda.data = golden["U"], golden["V"].T, golden["lam"]
    assert torch.allclose(changed(golden["x"]), golden["y"], atol=1e-9)
    assert torch.allclose(changed.get_delta_weight("default"), golden["delta_W"], atol=1e-9)


def test_each_matrix_gets_its_own_rank(tiny_llama: Any) -> None:
    weights = {name: module.weight.clone() for name, module in tiny_llama.named_modules() if name.endswith("_proj")}
    model = attach(SARA(share=0.3), tiny_llama)
    ranks = model.peft_config["default"].ranks
    assert ranks == {name: rank_reaching(torch.linalg.svdvals(weight), 0.3) for name, weight in weights.items()}
    assert len(set(ranks.values())) > 1
    trained = sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad)
    assert trained == sum(rank * (sum(weights[name].shape) + 1) for name, rank in ranks.items())


def test_stored_ranks_are_used_not_found_again(tiny_llama: Any, tmp_path: Path) -> None:
    base = copy.deepcopy(tiny_llama)
    attach(SARA(share=0.3, init="svd"), tiny_llama).save_pretrained(tmp_path)
    with torch.no_grad():  # another base: its own ranks would be others
        base.model.layers[0].mlp.up_proj.weight[1:] *= 1e-3
    stored = peft.PeftModel.from_pretrained(base, tmp_path)
    assert stored.base_model.model.model.layers[0].mlp.up_proj.changes["default"].sara_lambda.shape[0] > 1


def test_option_share() -> None:
    assert [layer(share=share).changes["default"].sara_lambda.shape[0] for share in (0.5, 0.8, 0.99)] == [1, 2, 3]


def test_option_reading() -> None:
    assert layer(share=0.8, reading="below").changes["default"].sara_lambda.shape == (1,)


def test_option_max_rank() -> None:
    assert layer(share=0.99, max_rank=2).changes["default"].sara_lambda.shape == (2,)


def test_option_init() -> None:
    changed = layer(share=0.8, init="svd")
    change, weight = changed.changes["default"], changed.base_layer.weight.detach()
    cut = change.sara_U.detach() @ change.sara_U.detach().T @ weight  # the best approximation of rank 2
    assert torch.linalg.svdvals(weight - cut).max() == pytest.approx(float(singular_values(weight)[2]), abs=1e-9)
    assert torch.equal(change.sara_lambda.data, torch.zeros(2, dtype=torch.float64))


def test_option_targets(tiny_llama: Any) -> None:
    assert {name.rpartition(".")[2] for name in SARA(targets=("q_proj",)).config(tiny_llama).ranks} == {"q_proj"}
    assert rooms.parse("adapters", "sara:targets=[q_proj, v_proj]").targets == ("q_proj", "v_proj")


def test_option_layers(tiny_llama: Any) -> None:
    assert all(".layers.1." in name for name in SARA(layers=(1,)).config(tiny_llama).ranks)


def test_trains_like_the_lora_that_it_is(tiny_llama: Any) -> None:
    """With lambda frozen at 1 and the same start, SARA's gradients are those of a LoRA of scale 1."""
    ids = torch.arange(1, 17).reshape(2, 8)
    ours = attach(SARA(share=0.2, max_rank=2), copy.deepcopy(tiny_llama))
    lora = attach(LoRA(rank=2, alpha=2, targets=r".*(q|k|v|o|gate|up|down)_proj"), tiny_llama)
    theirs = dict(lora.named_parameters())
    with torch.no_grad():
        for name, tensor in ours.named_parameters():
            for own, other in (("sara_V", "lora_A.default.weight"), ("sara_U", "lora_B.default.weight")):
                if name.endswith(own):
                    there = name.replace(f"grainline_sara_change.default.{own}", other)
                    tensor.copy_(theirs[there] if own == "sara_V" else torch.randn(tensor.shape))
                    theirs[there].copy_(tensor)
    for model in (ours, lora):
        model(input_ids=ids, labels=ids).loss.backward()
    for name, tensor in ours.named_parameters():
        if name.endswith("sara_V"):
            there = name.replace("grainline_sara_change.default.sara_V", "lora_A.default.weight")
            assert torch.allclose(tensor.grad, theirs[there].grad, atol=1e-6)
