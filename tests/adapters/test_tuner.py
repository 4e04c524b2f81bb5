"""Our tuners inside PEFT: registered under types of their own, on every kind of layer, by every way that PEFT has in.

The change of these tests adds a trained multiple of the frozen layer's own weight: y = (1 + t) W x + b.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftType
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from grainline.adapters._frozen import Frozen
from grainline.adapters._tuner import Change, TunerConfig, peft_type
from grainline.errors import ModelError


class TestChange(Change):
    def __init__(self, layer: Frozen, config: Any, name: str) -> None:
        super().__init__(layer, config, name)
        self.t = nn.Parameter(torch.full((), config.start, dtype=layer.dtype, device=layer.device))
        self.register_buffer("one", torch.ones((), dtype=layer.dtype, device=layer.device))  # stored, not trained

    def forward(self, x: Tensor, layer: Frozen) -> Tensor:
        return layer(x) + self.t * layer.read(x, layer.weight_OI)

    def merged(self, weight_OI: Tensor) -> Tensor:
        return (1 + self.t) * weight_OI


@dataclasses.dataclass
class TestConfig(TunerConfig):
    tuner = "test"
    change = TestChange

    start: float = 0.0


class Mixed(nn.Module):
    """One layer of each kind, in one line."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.linear = nn.Linear(4, 6)
        self.transposed = Conv1D(5, 6)
        self.norm = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.transposed(self.linear(self.convolution(x).flatten(2).mT)))


TARGETS = ["convolution", "linear", "transposed"]
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BASE = Mixed().requires_grad_(False)(X)


def made(**options: Any) -> Any:
    return peft.get_peft_model(Mixed(), TestConfig(target_modules=TARGETS, **options))


def set_all(model: Any, value: float) -> Any:
    for tensor in model.parameters():
        if tensor.requires_grad:
            tensor.data.fill_(value)
    return model


def by_hand(value: float) -> Tensor:
    model = Mixed()
    for name in TARGETS:
        model.get_submodule(name).weight.data.mul_(1 + value)
    return model(X)


def test_every_kind_of_layer_is_changed() -> None:
    model = made()
    assert torch.allclose(model(X), BASE, atol=1e-6)
    assert torch.allclose(set_all(model, 0.5)(X), by_hand(0.5), atol=1e-5)


def test_merge_and_unmerge_bit_for_bit() -> None:
    model = set_all(made(), 0.5)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    adapted = model(X)
    model.merge_adapter(safe_merge=True)
    assert torch.allclose(model(X), adapted, atol=1e-5)
    assert not torch.equal(
        model.base_model.model.linear.base_layer.weight, before["base_model.model.linear.base_layer.weight"]
    )
    with model.disable_adapter():  # off is the base, merged or not
        assert torch.equal(model(X), BASE)
    model.merge_adapter()
    model.unmerge_adapter()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
    plain = model.merge_and_unload()
    assert isinstance(plain, Mixed)
    assert torch.allclose(plain(X), adapted, atol=1e-5)


def test_a_merge_that_is_not_finite_is_refused() -> None:
    model = set_all(made(), float("inf"))
    with pytest.raises(ValueError, match="not finite at convolution"):
        model.merge_adapter(safe_merge=True)


def test_saved_files_and_every_way_back(tmp_path: Path) -> None:
    model = set_all(made(), 0.5)
    expected = model(X)
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (stored["peft_type"], stored["stored"], stored["start"]) == ("GRAINLINE_TEST", True, 0.0)
    assert torch.equal(peft.PeftModel.from_pretrained(Mixed(), tmp_path)(X), expected)
    lean = peft.PeftModel.from_pretrained(Mixed(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(lean(X), expected)
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(config, TestConfig)
    injected = peft.inject_adapter_in_model(config, Mixed())
    peft.set_peft_model_state_dict(injected, peft.get_peft_model_state_dict(model))
    assert torch.equal(injected(X), expected)
    model.load_adapter(str(tmp_path), "again", is_trainable=True)
    model.set_adapter("again")
    assert torch.equal(model(X), expected)
    model.delete_adapter("default")
    assert torch.equal(model(X), expected)


def test_frozen_buffers_are_stored_and_not_trained(tmp_path: Path) -> None:
    model = made()
    names = {name for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert names == {f"base_model.model.{target}.grainline_test_change.default.t" for target in TARGETS}
    assert "base_model.model.linear.grainline_test_change.one" in peft.get_peft_model_state_dict(model)


def test_copies_of_a_bfloat16_model() -> None:
    model = peft.get_peft_model(Mixed().bfloat16(), TestConfig(target_modules=TARGETS, start=0.25))
    assert model(X.bfloat16()).dtype == torch.bfloat16
    assert {tensor.dtype for tensor in model.parameters() if tensor.requires_grad} == {torch.float32}
    assert torch.equal(copy.deepcopy(model)(X.bfloat16()), model(X.bfloat16()))


def test_autocast() -> None:
    model = set_all(made(), 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.base_model.model.linear(torch.randn(2, 4)).dtype == torch.bfloat16
        found = model(X).float()
    assert torch.allclose(found, by_hand(0.5), atol=0.1)


def test_one_adapter_at_a_time() -> None:
    model = made()
    model.add_adapter("second", TestConfig(target_modules=["linear"], start=1.0))
    assert not any("second" in name for name, tensor in model.named_parameters() if tensor.requires_grad)
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ModelError, match="default and second are active together"):
        model(X)
    model.set_adapter("second")
    first = Mixed()
    first.linear.weight.data.mul_(2)
    assert torch.allclose(model(X), first(X), atol=1e-5)


def test_refusals() -> None:
    with pytest.raises(ModelError, match="norm is a LayerNorm"):
        peft.get_peft_model(Mixed(), TestConfig(target_modules=["norm"]))
    with pytest.raises(ModelError, match="one batch cannot mix"):
        made()(X, adapter_names=["default", "__base__"])


def test_types_of_our_own() -> None:
    member = peft_type("test")
    assert member is PeftType.GRAINLINE_TEST is PeftType("GRAINLINE_TEST") is peft_type("test")
    assert member in PeftType
    assert member in list(PeftType)
    assert pickle.loads(pickle.dumps(member)) is member
    assert copy.deepcopy(member) is member
    assert peft_type("test") == "GRAINLINE_TEST"
