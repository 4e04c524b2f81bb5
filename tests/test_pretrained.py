"""Asking transformers: what it would let pass is refused, and what it refuses is explained."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from grainline import pretrained
from grainline.errors import ModelError


@pytest.fixture
def folder(tiny_llama: Any, tmp_path: Path) -> Path:
    tiny_llama.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def refused(path: Any, message: str, **more: Any) -> None:
    options = {"use_safetensors": True, "trust_remote_code": False}
    with pytest.raises(ModelError, match=f"model its name: .*{message}"):
        pretrained.model(str(path), options, name="its name", **more)


def test_remote_code_is_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "of_its_own", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('it ran')")
    refused(folder, "trust_remote_code=true")


@pytest.mark.parametrize(
    ("kind", "message"), [("vit", "not a causal language model"), ("bert", "weights are not in its")]
)
def test_wrong_architecture(kind: str, message: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    refused(folder, message)


def test_only_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "no safetensors weights")


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.safetensors", "garbage"), ("model.safetensors", ""), ("config.json", "[]"), ("config.json", "{")],
)
def test_damaged_files(file: str, content: str, folder: Path) -> None:
    (folder / file).write_text(content)
    refused(folder, "")


def test_absent_network_costs_no_wait() -> None:
    refused("nobody/nothing", "not found.*Without a network")


def test_gguf_needs_its_reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    refused(folder, r"needs gguf.*grainline\[gguf\]", gguf="some.gguf")
