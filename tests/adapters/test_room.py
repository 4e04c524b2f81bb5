"""The battery that every adapter passes. A new file in ``adapters/`` joins by itself, with its defaults.

``changes_base`` excuses an adapter from "off = base"; nothing else does. Every trainable tensor is moved before a
property is tested, so that nothing holds only because an adapter starts as the identity.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from grainline import export, rooms
from grainline.adapters._seam import attach, tagged
from grainline.errors import ModelError
from grainline.models import checkpoint_layers, fingerprint

VARIANTS = [
    "lora:dora=true",
    "lora:rslora=true,rank=4",
    "lora:init=orthogonal",
    "lora:init=pissa,rank=4",
    "lora:init=olora,rank=4",
    "lora:targets=[q_proj, v_proj],layers=[1]",
    "lora:modules_to_save=[input_layernorm],rank_pattern.q_proj=2",
]
CHOICES = [*rooms.names("adapters"), *VARIANTS]
IDS = torch.tensor([[1, 5, 9, 33, 70, 12, 8, 3], [1, 7, 7, 60, 2, 90, 41, 11]])

pytestmark = pytest.mark.parametrize("choice", CHOICES)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits.float()


def moved(model: Any, size: float = 0.05) -> Any:
    """``model`` with every trainable tensor pushed away from its start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(size * torch.randn(tensor.shape).to(tensor.dtype))
    return model


def made(choice: str, base: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    adapter = rooms.parse("adapters", choice)
    return adapter, attach(adapter, base)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    return {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def test_text_round_trip(choice: str) -> None:
    adapter = rooms.parse("adapters", choice)
    assert rooms.parse("adapters", rooms.text(adapter)) == adapter


def test_says_what_it_is(choice: str) -> None:
    adapter = rooms.parse("adapters", choice)
    assert adapter.layouts
    assert adapter.layouts <= {"tree", "packed", "padded"}
    assert isinstance(adapter.changes_base, bool)


def test_fresh_is_the_base_model(choice: str, tiny_llama: Any) -> None:
    before = logits(tiny_llama)
    _, model = made(choice, tiny_llama)
    assert close(logits(model), before)


def test_it_changes_the_model(choice: str, tiny_llama: Any) -> None:
    before = logits(tiny_llama)
    _, model = made(choice, tiny_llama)
    assert not close(logits(moved(model)), before, 1e-2)


def test_off_is_the_base_bit_for_bit(choice: str, tiny_llama: Any) -> None:
    before, digest = logits(tiny_llama), fingerprint(tiny_llama)
    adapter, model = made(choice, tiny_llama)
    if adapter.changes_base:
        pytest.skip("declared: changes_base")
    moved(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), before)
    assert fingerprint(model) == digest


def test_only_tagged_tensors_train(choice: str, tiny_llama: Any) -> None:
    adapter, model = made(choice, tiny_llama)
    names = {tag.name for tag in tagged(adapter, model)}
    assert names
    assert set(gradients(moved(model))) == names  # each learns, and nothing else does
    saved = set(getattr(adapter, "modules_to_save", ()))
    for tag in tagged(adapter, model):
        whole = choice == "none" or saved & set(tag.name.split("."))
        assert tag.role in ({"weight"} if whole else set(adapter.roles.values())), tag.name


def test_merged_is_the_adapted_model(choice: str, tiny_llama: Any) -> None:
    _, model = made(choice, tiny_llama)
    if choice == "none":
        pytest.skip("nothing to merge")
    adapted = logits(moved(model))
    assert close(logits(export.merged(model)), adapted)
    assert torch.equal(logits(model), adapted)  # merged() leaves its argument alone
    model.merge_adapter()
    assert close(logits(model), adapted)
    model.unmerge_adapter()
    assert close(logits(model), adapted)


def test_saved_adapter_loads_with_plain_peft(choice: str, tiny_llama: Any, tmp_path: Path) -> None:
    base = copy.deepcopy(tiny_llama)
    adapter, model = made(choice, tiny_llama)
    if adapter.changes_base and choice != "none":
        export.write_initial(model, tmp_path / "initial")
    moved(model)
    trainable = {tag.name for tag in tagged(adapter, model)}
    initial = tmp_path / "initial" if (tmp_path / "initial").is_dir() else None
    export.write_adapter(model, tmp_path / "adapter", ids=IDS[0].tolist(), initial=initial)
    assert {tag.name for tag in tagged(adapter, model)} == trainable  # saving leaves the run as it was
    if choice == "none":
        again = type(base).from_pretrained(tmp_path / "adapter")
    else:
        again = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter")
    if adapter.changes_base and choice != "none":
        assert close(logits(again), logits(model))  # another factorisation: equal up to rounding
    else:
        assert torch.equal(logits(again), logits(model))
    ours = export.load_adapter(base, tmp_path / "adapter")
    assert torch.equal(logits(ours), logits(again))
    assert not any(tensor.requires_grad for tensor in ours.parameters())


def test_two_adapters_on_one_model(choice: str, tiny_llama: Any) -> None:
    adapter, model = made(choice, tiny_llama)
    if adapter.changes_base:
        pytest.skip("declared: changes_base")
    first = logits(moved(model))
    model.add_adapter("second", adapter.config(model))
    model.set_adapter("second")
    second = logits(moved(model, 0.1))
    assert not close(first, second, 1e-2)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)


def test_recomputed_layers_give_the_same_gradients(choice: str, tiny_llama: Any) -> None:
    checkpointed = copy.deepcopy(tiny_llama)
    checkpoint_layers(checkpointed)
    _, plain = made(choice, tiny_llama)
    _, recomputed = made(choice, checkpointed)
    expected, found = gradients(moved(plain)), gradients(moved(recomputed))
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-7), name


def test_bfloat16_base(choice: str, tiny_llama: Any) -> None:
    adapter, model = made(choice, tiny_llama.to(torch.bfloat16))
    for name, gradient in gradients(moved(model)).items():
        assert torch.isfinite(gradient).all(), name
    if choice != "none":
        held = {tag.tensor.dtype for tag in tagged(adapter, model) if tag.role != "weight"}
        assert held == {torch.float32}


def test_unknown_target_lists_what_exists(choice: str, tiny_llama: Any) -> None:
    adapter = rooms.parse("adapters", choice)
    if "targets" not in {field.name for field in dataclasses.fields(adapter)}:
        pytest.skip("no targets to name")
    with pytest.raises(ModelError, match=r"Did you mean 'q_proj'\?.*down_proj"):
        dataclasses.replace(adapter, targets=("q_prj",)).config(tiny_llama)
