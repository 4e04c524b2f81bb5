"""The layout that was found exact for a model, remembered until anything that it rests on changes.

Trying the layouts (:func:`~grainline.forward.choose_layout`) is the longest part of a start. What was found is kept
under a digest of all that decides it: the weights, the configuration and the code of the model, our own forward, the
versions of what both stand on, the processor, and the very rows that were read. The next run over the same model and
rows finds it; whatever is new is tried.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from grainline import atomic, forward, models
from grainline.forward import Chosen, Scorer, choose_layout
from grainline.types import Batch, Layout

PACKAGES = ("torch", "transformers", "peft", "grainline")


def remembered(rests_on: Sequence[str]) -> Callable[[Scorer, Mapping[Layout, Batch], Sequence[Layout]], Chosen]:
    """:func:`choose_layout`, which is only called for what was not asked before; both set the scorer to what they say.

    Args:
        rests_on: what else decides it: digests of the weights and of the configuration.
    """

    def find(scorer: Scorer, batches: Mapping[Layout, Batch], possible: Sequence[Layout]) -> Chosen:
        key = _digest(scorer, batches["padded"], [*possible, *rests_on])
        file = models.cache_dir() / "layouts" / f"{key}.json"
        if (known := _read(file)) is not None:
            scorer.use(packed=known.layout != "padded")
            return known
        found = choose_layout(scorer, batches, possible)
        atomic.text(file, json.dumps(found._asdict()))
        return found

    return find


def _read(file: Path) -> Chosen | None:
    """None where nothing is remembered, or nothing legible: then it is found again."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Chosen(**json.loads(file.read_text(encoding="utf-8")))
    return None


def _digest(scorer: Scorer, batch: Batch, words: Sequence[str]) -> str:
    causal, device = scorer.causal, batch.ids.device
    cuda = device.type == "cuda"
    words = [
        *words,
        *(importlib.metadata.version(package) for package in PACKAGES),
        scorer.fused.why if scorer.fused else "",
        f"{causal.plain_attention} {causal.dtype} {device.type}",
        torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability(),
    ]
    digest = hashlib.sha256("\n".join(words).encode())
    for file in (Path(inspect.getfile(type(causal))), *sorted(Path(forward.__path__[0]).glob("*.py"))):
        digest.update(file.read_bytes())
    for tensor in (batch.ids, batch.source, batch.target, batch.rows):
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
