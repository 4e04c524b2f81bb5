"""The contract notices each breach: adapters that break one promise each are caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import peft
import pytest
import torch
from peft.tuners.lora import Linear

from grainline import contract, models
from grainline.adapters.lora import LoRA
from grainline.contract import PROMISES, Subject, examine, tried

IDS = torch.tensor([[1, 5, 9, 33, 70, 12, 8, 3], [1, 7, 7, 60, 2, 90, 41, 11]])


class Planted:
    """LoRA with one fault, planted once it is attached."""

    layouts: ClassVar[frozenset[str]] = frozenset({"tree"})
    roles: ClassVar[dict[str, str]] = {"lora_A": "down", "lora_B": "up"}
    changes_base: ClassVar[bool] = False

    def __init__(self, fault: Callable[[Any], object] = id) -> None:
        self.attached = fault

    def config(self, model: Any) -> Any:
        return LoRA(rank=4).config(model)


def layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, Linear)]


def starts_elsewhere(model: Any) -> None:
    torch.nn.init.normal_(layers(model)[0].lora_B["default"].weight)


def alters_the_base(model: Any) -> None:
    layers(model)[3].get_base_layer().weight.data.mul_(1.01)


def trains_the_head(model: Any) -> None:
    model.get_base_model().lm_head.requires_grad_(True)


def trains_more_than_its_shapes(model: Any) -> None:
    head = model.get_base_model().lm_head
    head.requires_grad_(not head.weight.is_meta)


def merges_wrongly(model: Any) -> None:
    for layer in layers(model):
        delta = layer.get_delta_weight
        layer.get_delta_weight = lambda name, delta=delta: 2 * delta(name)


def does_nothing(model: Any) -> None:
    for layer in layers(model):
        layer.scaling["default"] = 0.0


def is_rounded(model: Any) -> None:
    for layer in layers(model):
        layer.lora_A["default"].to(layer.get_base_layer().weight.dtype)


@pytest.mark.parametrize(
    ("fault", "promise"),
    [
        (starts_elsewhere, "fresh is the base"),
        (alters_the_base, "off is the base"),
        (trains_the_head, "only tagged tensors train"),
        (trains_more_than_its_shapes, "parameters as stated"),
        (merges_wrongly, "merged is the adapted"),
        (does_nothing, "it changes the model"),
        (is_rounded, "bfloat16 base"),
    ],
)
def test_a_planted_fault_is_noticed(fault: Callable[[Any], object], promise: str, tiny_llama: Any) -> None:
    assert tried(promise, Subject(Planted(), tiny_llama, IDS)).verdict == "kept"
    assert tried(promise, Subject(Planted(fault), tiny_llama, IDS)).verdict == "broken"


def test_a_loss_on_the_way_to_disk_is_noticed(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = peft.PeftModel.from_pretrained

    def forgetful(*arguments: Any, **options: Any) -> Any:
        model = real(*arguments, **options)
        layers(model)[0].lora_B["default"].weight.data.zero_()
        return model

    monkeypatch.setattr(peft.PeftModel, "from_pretrained", forgetful)
    assert tried("saved and loaded", Subject(Planted(), tiny_llama, IDS)).verdict == "broken"


def test_an_excuse_is_repeated(tiny_llama: Any) -> None:
    planted = Planted(starts_elsewhere)
    planted.exceptions = {"fresh is the base": "it is planted"}  # type: ignore[attr-defined]
    found = tried("fresh is the base", Subject(planted, tiny_llama, IDS))
    assert found == ("fresh is the base", "excused", "it is planted")


def test_a_crash_is_a_breach(tiny_llama: Any) -> None:
    def crash(model: Any) -> None:
        raise ZeroDivisionError("in somebody's tuner")

    found = tried("two adapters", Subject(Planted(crash), tiny_llama, IDS))
    assert found == ("two adapters", "broken", "ZeroDivisionError: in somebody's tuner")


def test_nothing_is_changed(tiny_llama: Any) -> None:
    before = models.fingerprint(tiny_llama)
    findings = examine(Subject(LoRA(init="pissa", rank=4), tiny_llama, IDS))
    assert [finding.promise for finding in findings] == list(PROMISES)
    assert {finding.verdict for finding in findings} == {"kept", "excused"}
    assert models.fingerprint(tiny_llama) == before


def test_a_model_of_its_own() -> None:
    first, second = contract.base(), contract.base()
    assert models.fingerprint(first) == models.fingerprint(second)
    ids = contract.tokens(first, 3, 5)
    assert ids.shape == (3, 5)
    assert torch.equal(ids, contract.tokens(second, 3, 5))
