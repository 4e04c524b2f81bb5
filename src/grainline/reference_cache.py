"""The reference's log-probs on disk, per token, addressed by content, shared by all runs over one model.

An entry's address is the sha256 of its prompt and answer tokens; a folder belongs to one model (weights, dtype). So a
change of template, tokenizer, truncation or data finds nothing stale: other tokens are other addresses. A file holds
many answers as three flat tensors::

    keys      (n, 32) uint8      the addresses
    stops     (n,) int64         where each answer ends in ``logprobs``
    logprobs  (tokens,) float32  nats, as the scorer gave them, without weights
    PART      (tokens, ...)      what an objective needs beside them: hidden states, activations

Log-probs are held in memory. Parts stay on the disk and are read row by row: one token's final hidden state is as large
as some thousand log-probs. An answer that was cached without them is scored again when they are asked for.

Files are safetensors, written whole or not at all, and never changed; an interrupted fill keeps what it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grainline import atomic
from grainline.errors import RunError
from grainline.types import Batch, LogProbs

if TYPE_CHECKING:
    from torch import Tensor

ANSWERS_A_FILE = 512
BYTES_A_FILE = 2**28  # 256 MiB, where parts are cached


class _Place(NamedTuple):
    """Where the parts of an answer stand."""

    file: Path
    start: int
    stop: int


class ReferenceCache:
    """Token log-probs of one reference model, in memory and in ``folder``.

    Args:
        parts: what is kept beside log-probs: names of :mod:`grainline.forward.states`.
    """

    def __init__(self, folder: Path, parts: Sequence[str] = ()) -> None:
        self.folder, self.parts = folder, tuple(parts)
        self._known: dict[str, Tensor] = {}
        self._places: dict[str, _Place] = {}  # of answers with all ``parts``
        self._new: dict[str, dict[str, Tensor]] = {}
        self._bytes = 0
        self._open: dict[Path, Any] = {}
        self.reload()

    def reload(self) -> None:
        """Read every file of the folder (after other processes have written theirs)."""
        for file in sorted(self.folder.glob("*.safetensors")):
            try:
                opened = self._opened(file)
                keys, stops, flat = (opened.get_tensor(name) for name in ("keys", "stops", "logprobs"))
                complete = set(self.parts) <= set(opened.keys())
            except Exception as error:
                raise RunError(f"unreadable cache file: {error}", where=str(file), instead="Delete it.") from error
            if bool(flat.isnan().any()):
                raise RunError("NaN among the reference log-probs", where=str(file), instead="Delete it.")
            addresses, ends = keys.numpy().tobytes(), stops.tolist()
            for i, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                key = addresses[32 * i : 32 * (i + 1)].hex()
                self._known[key] = flat[start:stop]
                if complete:
                    self._places[key] = _Place(file, start, stop)

    def __contains__(self, key: str) -> bool:
        return key in self._new or key in (self._places if self.parts else self._known)

    def missing(self, batches: Iterable[Batch]) -> list[Batch]:
        """Those of ``batches`` with at least one answer that is not here."""
        return [batch for batch in batches if any(key not in self for key in batch.keys)]

    def fill(self, batches: Iterable[Batch], score: Callable[[Batch], LogProbs]) -> None:
        """Score ``batches`` and keep their answers; written every :data:`ANSWERS_A_FILE` answers and at the end."""
        try:
            for batch in batches:
                for key, values in _answers(batch, score(batch), self.parts):
                    if key not in self:
                        self._new[key] = values
                        self._bytes += sum(value.nbytes for value in values.values())
                if len(self._new) >= ANSWERS_A_FILE or self._bytes >= BYTES_A_FILE:
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
            if not all(bool(values[name].isfinite().all()) for name in values if name != "activations"):
                raise RunError(f"the reference gives a non-finite log-prob for answer {key[:12]}")
        flat = {name: torch.cat([v[name] for v in self._new.values()]) for name in ("logprobs", *self.parts)}
        ends = torch.tensor([len(v["logprobs"]) for v in self._new.values()]).cumsum(0)
        keys = torch.tensor([list(bytes.fromhex(key)) for key in self._new], dtype=torch.uint8)
        name = hashlib.sha256("".join([*self._new, *self.parts]).encode()).hexdigest()[:24]
        file = self.folder / f"{name}.safetensors"
        with atomic.file(file) as temporary:
            save_file({"keys": keys, "stops": ends} | flat, temporary)
        for (key, values), stop in zip(self._new.items(), ends.tolist(), strict=True):
            self._known[key] = values["logprobs"]
            self._places[key] = _Place(file, stop - len(values["logprobs"]), stop)
        self._new, self._bytes = {}, 0

    def verify(self, batch: Batch, score: Callable[[Batch], LogProbs], *, tolerance: float) -> float:
        """Score ``batch`` again and compare; returns the largest difference in nats.

        Raises:
            RunError: it exceeds ``tolerance``: the cache is of another model, or damaged.
        """
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
            if key not in self:
                raise RunError(
                    f"no reference {' and '.join(('log-probs', *self.parts))} of answer {key[:12]}.",
                    where=str(self.folder),
                    instead="Is the folder shared by all machines?",
                )
            values = self._known[key]
            token[b, : len(values)] = values
        device = batch.rows.device
        found = batch.logprobs(token.to(device).masked_fill(batch.rows < 0, 0.0))
        parts: dict[str, Any] = {FIELDS[part]: self._part(part, batch).to(device) for part in self.parts}
        return found._replace(**parts)

    def _part(self, part: str, batch: Batch) -> Tensor:
        """(B, T, ...) of one part, 0 outside the answers."""
        from torch.nn.utils.rnn import pad_sequence

        rows = []
        for key in batch.keys:
            file, start, stop = self._places[key]
            rows.append(self._opened(file).get_slice(part)[start:stop])
        return pad_sequence(rows, batch_first=True)

    def _opened(self, file: Path) -> Any:
        from safetensors import safe_open

        if file not in self._open:
            self._open[file] = safe_open(file, "pt")
        return self._open[file]


FIELDS = {"hidden": "hidden", "layers": "hidden", "activations": "activations"}
"""Part -> the field of LogProbs that holds it."""


def _answers(batch: Batch, scored: LogProbs, parts: Sequence[str]) -> Iterable[tuple[str, dict[str, Tensor]]]:
    token, lengths = scored.token.detach().float().cpu(), scored.mask.sum(-1).tolist()
    held = {part: getattr(scored, FIELDS[part]).cpu() for part in parts}
    for b, (key, length) in enumerate(zip(batch.keys, lengths, strict=True)):
        yield key, {"logprobs": token[b, :length].clone()} | {p: value[b, :length].clone() for p, value in held.items()}
