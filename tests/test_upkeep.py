"""What an adapter costs: counts are exact, times are only compared with themselves."""

from __future__ import annotations

from typing import Any

import torch

from grainline import rooms
from grainline.contract import Subject, tokens
from grainline.upkeep import STATE, Upkeep, measure

IDS = torch.tensor([[1, 5, 9, 33], [1, 7, 7, 60]])


def subjects(base: Any, *choices: str) -> list[Subject]:
    return [Subject(rooms.parse("adapters", choice), base, IDS) for choice in choices]


def test_counts(tiny_llama: Any) -> None:
    ids = tokens(tiny_llama, 2, 16)
    small, large, shared = measure(
        subjects(tiny_llama, "lora:rank=4", "lora:rank=8", "miss:rank=8"), ids, repeats=1, seconds=0
    )
    assert (small.parameters, large.parameters) == (4 * 1024, 8 * 1024)
    assert large.file - small.file >= 4 * 4 * 1024  # float32
    # A layer of LoRA keeps A x: rank numbers a token, in each of 14 layers; beside them only the state grows.
    kept = [cost.memory - STATE * cost.parameters for cost in (small, large)]
    assert kept[1] - kept[0] == 14 * ids.numel() * 4 * 4
    assert shared.memory - STATE * shared.parameters < kept[1]
    assert all(cost.seconds > 0 for cost in (small, large, shared))


def test_ratios() -> None:
    found = Upkeep(2.0, 30, 4, 50).beside(Upkeep(1.0, 10, 8, 50))
    assert found == {"seconds": 2.0, "memory": 3.0, "parameters": 0.5, "file": 1.0}


def test_models_are_left_alone(tiny_llama: Any) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_llama.named_parameters()}
    measure(subjects(tiny_llama, "lora"), tokens(tiny_llama, 1, 4), repeats=1, seconds=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_llama.named_parameters())
    assert all(tensor.grad is None for tensor in tiny_llama.parameters())
