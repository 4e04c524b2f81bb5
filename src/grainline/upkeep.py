"""What an adapter costs in a training step, measured beside another one on the same model.

A step is forward and backward through the model's body; the head, which no adapter changes, is left out, so that the
ratio of two adapters is not diluted by it. The two take turns, and the fastest time of each counts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from grainline import cpu, export, footprint
from grainline.contract import Subject

STATE = 16
"""Bytes of a trained float32 number with its gradient and AdamW's two moments."""


class Upkeep(NamedTuple):
    """What one adapter takes."""

    seconds: float  # a step, the fastest
    memory: int  # bytes: kept for the backward, and weights, gradients and AdamW's state of the adapter
    parameters: int
    file: int  # bytes on disk, all files of the adapter

    def beside(self, other: Upkeep) -> dict[str, float]:
        """Ratios to ``other``."""
        return {name: mine / max(theirs, 1e-12) for name, mine, theirs in zip(self._fields, self, other, strict=True)}


def measure(subjects: Sequence[Subject], ids: Tensor, *, repeats: int = 5, seconds: float = 2.0) -> list[Upkeep]:
    """The upkeep of each adapter; all are on copies of their model at the same time.

    Args:
        ids: (rows, tokens) int64 that a step reads.
        repeats: timed steps of each at least, after one that warms up.
        seconds: short steps are repeated for so long.
    """
    attached = [subject.attached().train() for subject in subjects]
    kept = [_kept(model, ids) for model in attached]
    times: list[list[float]] = [[] for _ in attached]
    while len(times[0]) < repeats or sum(map(sum, times)) < seconds:
        for model, taken in zip(attached, times, strict=True):
            start = time.perf_counter()
            _step(model, ids)
            taken.append(time.perf_counter() - start)
    found = []
    for model, bytes_kept, taken in zip(attached, kept, times, strict=True):
        count = sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad)
        found.append(Upkeep(min(taken), bytes_kept + STATE * count, count, _on_disk(model)))
    return found


def _step(model: Any, ids: Tensor) -> None:
    with cpu.full_width(ids.is_cpu):  # as in training
        said = model(input_ids=ids, use_cache=False, output_hidden_states=True, logits_to_keep=1)
        said.hidden_states[-1].float().square().mean().backward()
    model.zero_grad()
    if ids.is_cuda:
        import torch

        torch.cuda.synchronize()


def _kept(model: Any, ids: Tensor) -> int:
    with footprint.kept_for_backward(model) as found:
        _step(model, ids)
    return sum(found.values())


def _on_disk(model: Any) -> int:
    """PEFT's two files; of a model without adapter nothing is stored apart."""
    if not hasattr(model, "peft_config"):
        return sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    with tempfile.TemporaryDirectory() as scratch:
        export.write_initial(model, Path(scratch) / "adapter")
        return sum(file.stat().st_size for file in (Path(scratch) / "adapter").rglob("*.*") if file.name != "README.md")
