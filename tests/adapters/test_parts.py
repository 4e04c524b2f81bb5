"""Finding modules by name: with and without an adapter in place."""

from __future__ import annotations

from typing import Any

import peft
import pytest

from grainline.adapters._parts import check_modules, check_patterns, find_targets, weight_modules
from grainline.errors import ModelError

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_weight_modules_see_through_adapters(tiny_llama: Any) -> None:
    names = weight_modules(tiny_llama)
    assert len(names) == 2 * 7 + 2  # two layers of seven matrices, embedding, head
    adapted = peft.get_peft_model(tiny_llama, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert weight_modules(adapted) == names
    assert find_targets(adapted, ("q_proj",), (0,)) == ["model.layers.0.self_attn.q_proj"]


def test_without_layers_targets_stay_as_written(tiny_llama: Any) -> None:
    assert find_targets(tiny_llama, "all-linear") == "all-linear"
    assert find_targets(tiny_llama, ("q_proj", "v_proj")) == ["q_proj", "v_proj"]
    assert find_targets(tiny_llama, r".*\.q_proj") == r".*\.q_proj"


def test_layers_give_full_names(tiny_llama: Any) -> None:
    found = find_targets(tiny_llama, "all-linear", (1,))
    assert [name.rpartition(".")[2] for name in found] == LINEAR
    assert all(name.startswith("model.layers.1.") for name in found)
    assert find_targets(tiny_llama, r".*\.q_proj", (0,)) == ["model.layers.0.self_attn.q_proj"]
    with pytest.raises(ModelError, match=r"no target lies in layers \[0\]"):
        find_targets(tiny_llama, ("lm_head",), (0,))


def test_patterns_and_modules(tiny_llama: Any) -> None:
    check_patterns(tiny_llama, ["q_proj", r"layers\.1\..*_proj"])
    check_modules(tiny_llama, ["lm_head", "norm"])
    with pytest.raises(ModelError, match="matches no module"):
        check_patterns(tiny_llama, ["proj"])
    with pytest.raises(ModelError, match="modules_to_save"):
        check_modules(tiny_llama, ["head"])
