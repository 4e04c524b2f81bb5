"""The reference's log-probs on disk, per token, addressed by content, shared by all runs over one model.

An entry's address is the sha256 of its prompt and answer tokens; a folder belongs to one model (weights, dtype). So a
change of template, tokenizer, truncation or data finds nothing stale: other tokens are other addresses. A file holds
many answers as three flat tensors::

    keys      (n, 32) uint8      the addresses
    stops     (n,) int64         where each answer ends in ``logprobs``
    logprobs  (tokens,) float32  nats, as the scorer gave them, without weights

Files are safetensors, written whole or not at all, and never changed; an interrupted fill keeps what it had.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grainline import atomic
from grainline.errors import RunError
from grainline.types import Batch, LogProbs

if TYPE_CHECKING:
    from torch import Tensor

ANSWERS_A_FILE = 512


class ReferenceCache:
    """Token log-probs of one reference model, in memory and in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, Tensor] = {}
        self._new: dict[str, Tensor] = {}
        self.reload()

    def reload(self) -> None:
        """Read every file of the folder (after other processes have written theirs)."""
        from safetensors.torch import load_file

        for file in sorted(self.folder.glob("*.safetensors")):
            try:
                tensors = load_file(file)
                keys, stops, flat = tensors["keys"], tensors["stops"], tensors["logprobs"]
            except Exception as error:
                raise RunError(f"unreadable cache file: {error}", where=str(file), instead="Delete it.") from error
            if bool(flat.isnan().any()):
                raise RunError("NaN among the reference log-probs", where=str(file), instead="Delete it.")
            addresses, ends = keys.numpy().tobytes(), stops.tolist()
            for i, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                self._known[addresses[32 * i : 32 * (i + 1)].hex()] = flat[start:stop]

    def __contains__(self, key: str) -> bool:
        return key in self._known or key in self._new

    def missing(self, batches: Iterable[Batch]) -> list[Batch]:
        """Those of ``batches`` with at least one answer that is not here."""
        return [batch for batch in batches if any(key not in self for key in batch.keys)]

    def fill(self, batches: Iterable[Batch], score: Callable[[Batch], LogProbs]) -> None:
        """Score ``batches`` and keep their answers; written every :data:`ANSWERS_A_FILE` answers and at the end."""
        try:
            for batch in batches:
                for key, values in _answers(batch, score(batch)):
                    if key not in self:
                        self._new[key] = values
                if len(self._new) >= ANSWERS_A_FILE:
                    self.flush()
        finally:
            self.flush()

    def flush(self) -> None:
        """Write what is new as one file, atomically, named by its content."""
        import torch
        from safetensors.torch import save_file

        if not self._new:
            return
        for key, values in self._new.items():
            if not bool(values.isfinite().all()):
                raise RunError(f"the reference gives a non-finite log-prob for answer {key[:12]}")
        tensors = {
            "keys": torch.tensor([list(bytes.fromhex(key)) for key in self._new], dtype=torch.uint8),
            "stops": torch.tensor([len(v) for v in self._new.values()]).cumsum(0),
            "logprobs": torch.cat(list(self._new.values())),
        }
        name = hashlib.sha256("".join(self._new).encode()).hexdigest()[:24]
        with atomic.file(self.folder / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary)
        self._known |= self._new
        self._new = {}

    def verify(
        self, batches: Sequence[Batch], score: Callable[[Batch], LogProbs], *, tolerance: float, seed: int = 0
    ) -> float:
        """Score one random batch again and compare; returns the largest difference in nats.

        Raises:
            RunError: it exceeds ``tolerance``: the cache is of another model, or damaged.
        """
        batch = random.Random(seed).choice(batches)
        error = float((score(batch).token.cpu() - self(batch).token.cpu()).abs().max())
        if not error <= tolerance:
            raise RunError(
                f"cached reference log-probs differ from the model's by {error:.1e} nats (allowed: {tolerance:.0e})",
                where=str(self.folder),
                instead="Delete the folder; it is filled again.",
            )
        return error

    def __call__(self, batch: Batch) -> LogProbs:
        """The reference's log-probs of ``batch``, in its shape and on its device."""
        import torch

        token = torch.full(batch.rows.shape, float("nan"))
        for b, key in enumerate(batch.keys):
            if key not in self._known:
                raise RunError(
                    f"no reference log-probs of answer {key[:12]}.",
                    where=str(self.folder),
                    instead="Is the folder shared by all machines?",
                )
            values = self._known[key]
            token[b, : len(values)] = values
        return batch.logprobs(token.to(batch.rows.device).masked_fill(batch.rows < 0, 0.0))


def _answers(batch: Batch, scored: LogProbs) -> Iterable[tuple[str, Tensor]]:
    token, lengths = scored.token.detach().float().cpu(), scored.mask.sum(-1).tolist()
    for key, row, length in zip(batch.keys, token, lengths, strict=True):
        yield key, row[:length].clone()
