"""An adapter's two files: read, or named as the fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from _build import adapted, model
from grainline import adapter_files
from grainline.errors import ModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    adapted(model("llama")).save_pretrained(tmp_path, save_embedding_layers=False)
    return tmp_path


def test_config_tensors_and_a_fingerprint_of_both(folder: Path) -> None:
    assert adapter_files.read_config(folder).r == 4
    assert all(isinstance(tensor, torch.Tensor) for tensor in adapter_files.read_tensors(folder).values())
    before = adapter_files.fingerprint(folder)
    for name in (adapter_files.CONFIG, adapter_files.WEIGHTS):
        file = folder / name
        kept = file.read_bytes()
        file.write_bytes(kept + b" ")
        assert adapter_files.fingerprint(folder) != before
        file.write_bytes(kept)
    assert adapter_files.fingerprint(folder) == before


@pytest.mark.parametrize("name", [adapter_files.CONFIG, adapter_files.WEIGHTS])
def test_a_missing_or_damaged_file_is_named(folder: Path, name: str) -> None:
    read = adapter_files.read_config if name == adapter_files.CONFIG else adapter_files.read_tensors
    (folder / name).write_text('{"peft_type": 3}')
    with pytest.raises(ModelError, match=name):
        read(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        read(folder)
    with pytest.raises(ModelError, match=name):
        adapter_files.fingerprint(folder)
