"""A start that data decide: seen by a run on its own first steps, kept, and read again by a run that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from _toy import Toy
from grainline.adapters import lora_torch
from grainline.adapters._seam import attach
from grainline.adapters.lora import LoRA
from grainline.errors import ModelError
from grainline.first_look import begin
from grainline.replay import StopAfter
from grainline.runs import Run, align

GA = "lora:rank=4,init=lora_ga,start_rows=16"


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def recorded(patch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The gradients that are decomposed from here on."""
    found: list[torch.Tensor] = []
    real = lora_torch.factors

    def factors(gradient: torch.Tensor, *rest: Any) -> Any:
        found.append(gradient.clone())
        return real(gradient, *rest)

    patch.setattr(lora_torch, "factors", factors)
    return found


def test_a_resumed_run_reads_the_start_that_was_kept(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = align(**toy.choices(tmp_path / "whole", adapter=GA))
    again = align(**toy.choices(tmp_path / "again", adapter=GA), callbacks=[StopAfter(2)])
    monkeypatch.setattr(lora_torch, "study", None)  # a second look would fail
    again = align(**toy.choices(tmp_path / "again", adapter=GA), resume=True)
    one, other = tensors(whole), tensors(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(tensor.shape[0] == 8 for name, tensor in one.items() if "lora_A" in name)  # twice the rank


def test_a_run_that_goes_on_keeps_its_start_where_another_would_be_drawn(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A randomised decomposition draws otherwise on another device, and the base would be parted otherwise."""
    from peft.tuners.lora import layer

    real = layer.svd_lowrank

    def otherwise(*given: Any, **options: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(99)
            return real(*given, **options)

    niter = "lora:rank=4,init=pissa_niter_1"
    whole = align(**toy.choices(tmp_path / "whole", adapter=niter))
    align(**toy.choices(tmp_path / "again", adapter=niter), callbacks=[StopAfter(2)])
    monkeypatch.setattr(layer, "svd_lowrank", otherwise)
    other = align(**toy.choices(tmp_path / "other", adapter=niter, steps=1))
    start = load_file(whole.folder / "initial" / "adapter_model.safetensors")
    drawn = load_file(other.folder / "initial" / "adapter_model.safetensors")
    assert not all(torch.allclose(start[name], drawn[name], atol=1e-2) for name in start)
    again = align(**toy.choices(tmp_path / "again", adapter=niter), resume=True)
    for one, resumed in zip(whole.metrics, again.metrics, strict=True):
        assert one.get("loss") == pytest.approx(resumed.get("loss"), abs=1e-5)
    for name, tensor in tensors(whole).items():
        torch.testing.assert_close(tensors(again)[name], tensor, atol=1e-4, rtol=1e-3)


def test_it_sees_the_objective_on_the_first_steps_however_they_are_split(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = recorded(monkeypatch)
    align(**toy.choices(tmp_path / "one", adapter=GA, steps=1))
    few = list(seen)
    seen.clear()
    align(**toy.choices(tmp_path / "split", adapter=GA, steps=1, max_tokens=64))
    for a, b in zip(few, seen, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)
    # One step of plain SGD on all weights moves them along the same gradient.
    rate = {"optimizer": "sgd:lr=1.0", "steps": 1, "max_grad_norm": 0, "schedule": "constant", "adapter": "none"}
    full = align(**toy.choices(tmp_path / "full", **rate))
    after = load_file(full.adapter / "model.safetensors")
    before = load_file(Path(toy.model) / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(before[name] - after[name], few[0], atol=1e-5, rtol=1e-3)


def test_without_rows_it_is_refused(tiny_llama: Any) -> None:
    adapter = LoRA(rank=4, init="lora_ga")
    with pytest.raises(ModelError, match="found on rows of the data"):
        begin(adapter, attach(adapter, tiny_llama), None)


def test_others_look_at_nothing(tiny_llama: Any) -> None:
    begin(LoRA(), tiny_llama, None)  # would raise
