"""Adapters out and in: strict, checked, and in forms that plain PEFT and transformers read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from grainline import export, rooms
from grainline.adapters._seam import attach
from grainline.errors import ModelError, RunError

IDS = [1, 5, 9, 33, 70, 12, 8, 3]


class Words:
    """As much of a tokenizer as an export asks for."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [len(word) for word in text.split()]}

    def save_pretrained(self, folder: Path) -> None:
        (folder / "chat_template.jinja").write_text("{{ messages }}")


def trained(base: Any, choice: str = "lora:rank=4") -> Any:
    """An adapter that has moved."""
    torch.manual_seed(0)
    model = attach(rooms.parse("adapters", choice), base)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(0.05 * torch.randn(tensor.shape))
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor([IDS])).logits


def test_written_whole_with_probe_and_card(tiny_llama: Any, tmp_path: Path) -> None:
    model = trained(tiny_llama)
    export.write_adapter(model, tmp_path / "adapter", ids=IDS, methods=["lora", "dpo"])
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "probe.json", "README.md",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    head = yaml.safe_load((tmp_path / "adapter" / "README.md").read_text().split("---\n")[1])
    assert head == {"library_name": "peft", "pipeline_tag": "text-generation", "tags": ["grainline", "lora", "dpo"]}


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_tensors_must_fit(fault: str, tiny_llama: Any, tmp_path: Path) -> None:
    base = copy.deepcopy(tiny_llama)
    export.write_adapter(trained(tiny_llama), tmp_path, ids=IDS)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = min(tensors)
    if fault == "shape":
        tensors[name] = tensors[name][:2].contiguous()
    else:
        value = tensors.pop(name)
        if fault == "unexpected":
            tensors |= {name: value, name.replace("layers.0", "layers.9"): value.clone()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=f"{fault}.*Another base model"):
        export.load_adapter(base, tmp_path)


def test_another_base_is_noticed(tiny_llama: Any, tmp_path: Path) -> None:
    base = copy.deepcopy(tiny_llama)
    export.write_adapter(trained(tiny_llama), tmp_path, ids=IDS)
    with torch.no_grad():
        base.model.norm.weight.mul_(1.5)
    with pytest.raises(ModelError, match="same base model"):
        export.load_adapter(base, tmp_path)
    assert export.load_adapter(base, tmp_path, check=False) is not None


def test_loaded_to_go_on_training(tiny_llama: Any, tmp_path: Path) -> None:
    base = copy.deepcopy(tiny_llama)
    model = trained(tiny_llama)
    export.write_adapter(model, tmp_path, ids=IDS)
    again = export.load_adapter(base, tmp_path, trainable=True)
    names = [name for name, tensor in model.named_parameters() if tensor.requires_grad]
    assert [name for name, tensor in again.named_parameters() if tensor.requires_grad] == names
    second = export.load_adapter(again, tmp_path, name="frozen")  # e.g. as the reference
    assert second is again
    assert second.active_adapter == "frozen"


@pytest.mark.parametrize("choice", ["lora:init=pissa,rank=4", "lora:init=olora,rank=4,rslora=true"])
def test_residual_starts_ship_as_plain_lora_of_twice_the_rank(choice: str, tiny_llama: Any, tmp_path: Path) -> None:
    base = copy.deepcopy(tiny_llama)
    torch.manual_seed(0)
    model = attach(rooms.parse("adapters", choice), tiny_llama)
    export.write_initial(model, tmp_path / "start")
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(0.05 * torch.randn(tensor.shape))
    with pytest.raises(ModelError, match="write_initial"):
        export.write_adapter(model, tmp_path / "adapter", ids=IDS)
    before = logits(model)
    for _ in range(2):  # a run may be written more than once
        export.write_adapter(model, tmp_path / "adapter", ids=IDS, initial=tmp_path / "start")
    assert torch.equal(logits(model), before)
    assert list(model.peft_config) == ["default"]
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    plain = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.allclose(logits(plain), before, atol=1e-4)
    with plain.disable_adapter():
        assert torch.equal(logits(plain), logits(base.unload() if hasattr(base, "unload") else base))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_folder_is_a_plain_model(dtype: torch.dtype, tiny_llama: Any, tmp_path: Path) -> None:
    model = trained(tiny_llama.to(dtype))
    error = export.write_merged(model, tmp_path / "whole", tokenizer=Words(), ids=IDS)
    assert error < (1e-4 if dtype is torch.float32 else 0.5)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=dtype)
    assert again.dtype is dtype
    assert (logits(again) - logits(model)).abs().max() < (1e-3 if dtype is torch.float32 else 1)
    said = json.loads((tmp_path / "whole" / "export.json").read_text())
    assert said["max_error_nats"] == error
    assert (tmp_path / "whole" / "chat_template.jinja").is_file()
    assert "library_name: transformers" in (tmp_path / "whole" / "README.md").read_text()


def test_merging_adds_in_float32(tiny_llama: Any) -> None:
    """A change below bfloat16's resolution of the weight must be rounded once, not lost term by term."""
    model = trained(tiny_llama.to(torch.bfloat16))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    exact = (
        layer.weight.float()
        + layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    )
    assert torch.equal(export.merged(model).model.layers[0].self_attn.q_proj.weight, exact.to(torch.bfloat16))


def test_run_folder(tiny_llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    base = copy.deepcopy(tiny_llama)
    model = trained(tiny_llama)
    export.write_adapter(model, run / "adapter", ids=IDS)
    (run / "recipe.yaml").write_text("model: {name: some/where, load_in_4bit: true}\nseed: 1\n")
    asked = []

    def load(choice: Any) -> Any:
        asked.append(choice)
        return export.models.LoadedModel(copy.deepcopy(base), Words(), "", torch.device("cpu"), torch.float32)

    monkeypatch.setattr(export.models, "load", load)
    said = export.export(run, tmp_path / "peft")
    assert said["format"] == "peft"
    assert said["max_error_nats"] == 0
    assert asked[0].name == "some/where"
    assert not asked[0].load_in_4bit  # merging and checking want the base unrounded
    assert torch.equal(logits(peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "peft")), logits(model))
    said = export.export(run, tmp_path / "whole", "merged")
    assert said["max_error_nats"] < 1e-4
    assert (tmp_path / "whole" / "model.safetensors").is_file()


def test_what_cannot_be_exported(tiny_llama: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Did you mean 'merged'"):
        export.export(tmp_path, tmp_path / "to", "merge")
    with pytest.raises(RunError, match="no adapter there"):
        export.export(tmp_path, tmp_path / "to")
    with pytest.raises(ModelError, match="no adapter to merge"):
        export.merged(tiny_llama)
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        export.load_adapter(tiny_llama, tmp_path)
    model = trained(tiny_llama)
    model.get_base_model().is_quantized = True
    with pytest.raises(ModelError, match="quantised"):
        export.merged(model)
