"""A vector for each row: what a model holds at its end. Vectors stay on the disk, and are made once.

A file of vectors belongs to its rows and to what made them. It is filled :data:`WINDOW` rows at a time, and a file
beside it counts the windows that are done; after an interruption the next one begins.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from grainline import atomic, conversation, generation, models, progress
from grainline.data.encode import Encoder
from grainline.errors import DataError, ModelError
from grainline.types import Answer, Record

Array = np.ndarray[Any, Any]
Item = TypeVar("Item")
Item_ = TypeVar("Item_", contravariant=True)

WINDOW = 256  # rows that are embedded together; results do not depend on where a job was interrupted
TOKENS = 8192  # positions that a model reads at once
SILENCE = 30.0  # seconds until something is said again


class Embedder(Protocol[Item_]):
    """What makes vectors."""

    name: str  # all that decides a vector beside its item, and where the vectors are from

    def key(self, item: Item_) -> bytes:
        """Of all that decides the item's vector."""

    def __call__(self, items: Sequence[Item_]) -> Array:
        """(n, D) float32."""


class Manner(NamedTuple):
    """How a model embeds."""

    pooling: Literal["last", "mean"] = "last"
    of: Literal["conversation", "prompt"] = "conversation"
    max_length: int = 2048
    dtype: str = "auto"
    device: str = "auto"


def filled(
    folder: Path, items: Iterable[Item], embed: Embedder[Item], precision: str = "float32", *, quiet: bool = True
) -> Array:
    """(N, D) the vectors of ``items`` (which are gone through twice), in order, mapped from a file in ``folder``."""
    digest, number = hashlib.sha256(f"{embed.name} {precision}".encode()), 0
    for item in items:
        digest.update(embed.key(item))
        number += 1
    if not number:
        return np.empty((0, 0), precision)
    file = folder / f"{digest.hexdigest()[:32]}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    done = _done(file)
    vectors: Any = np.load(file, mmap_mode="r+") if done else None
    said = time.monotonic()
    for n, window in enumerate(_windows(items)):
        if n < done:
            continue
        made_BD = np.asarray(embed(window), precision)
        if vectors is None:
            vectors = np.lib.format.open_memmap(file, "w+", precision, (number, made_BD.shape[1]))
        if made_BD.shape[1:] != vectors.shape[1:]:
            what = f"vectors of {made_BD.shape[1]} numbers among vectors of {vectors.shape[1]}."
            raise DataError(what, where="embeddings")
        vectors[n * WINDOW : n * WINDOW + len(window)] = made_BD
        vectors.flush()
        atomic.text(file.with_suffix(".done"), str(n + 1))
        if time.monotonic() - said > SILENCE:
            said = time.monotonic()
            progress.say(f"vectors of {min(number, (n + 1) * WINDOW):,} of {number:,} rows", quiet=quiet)
    return np.load(file, mmap_mode="r")


def _done(file: Path) -> int:
    """Windows of ``file`` that are filled."""
    said = file.with_suffix(".done")
    return int(said.read_text(encoding="utf-8")) if said.is_file() and file.is_file() else 0


def _windows(items: Iterable[Item]) -> Iterator[list[Item]]:
    found = iter(items)
    while window := list(islice(found, WINDOW)):
        yield window


# ---------------------------------------------------------------------------------------------------- embedders


class Column:
    """Vectors that the rows hold."""

    def __init__(self, column: str) -> None:
        self.column, self.name = column, f"column {column}"

    def key(self, item: tuple[str, Any]) -> bytes:
        return _digest(item[1])

    def __call__(self, items: Sequence[tuple[str, Any]]) -> Array:
        """``items`` are (the row's id, its vector)."""
        lengths = {len(vector) for _, vector in items if isinstance(vector, (list, tuple))}
        for where, vector in items:
            if not isinstance(vector, (list, tuple)) or len(vector) != max(lengths):
                raise DataError(
                    "no vector as long as those of other rows.",
                    where=f"{where} {self.column}",
                    instead="Write a list of numbers, as many in each row.",
                )
        try:
            return np.array([vector for _, vector in items], np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"not all are numbers: {error}.", where=f"{items[0][0]} ... {self.column}") from None


class Causal:
    """Final hidden states of a causal language model, of the last token (Deita's) or their mean over all tokens."""

    def __init__(self, model: str, manner: Manner) -> None:
        self.manner, speakers = manner, conversation.of(model, dtype=manner.dtype, device=manner.device)
        self.model, self.place = speakers.voices[0].model, speakers.place
        window = generation.window(self.model)
        self.encoder = Encoder(speakers.tokenizer, max_length=min(manner.max_length, window))
        self.name = f"{fingerprint(self.model)} {manner}"

    def key(self, item: Record) -> bytes:
        return _of(item)

    def __call__(self, items: Sequence[Record]) -> Array:
        import torch

        ids = self._ids(items)
        found: dict[int, Array] = {}
        with torch.no_grad():
            for together in _by_length([len(row) for row in ids]):
                states = self._pooled([ids[i] for i in together])
                found |= dict(zip(together, states.float().cpu().numpy(), strict=True))
        return np.stack([found[i] for i in range(len(ids))])

    def _ids(self, records: Sequence[Record]) -> list[tuple[int, ...]]:
        """Tokens as in training: the chat template once, too long a conversation without its oldest turns."""
        whole = [record._replace(answers=record.answers[:1] or (Answer("Yes."),), label=True) for record in records]
        examples, problems = self.encoder.encode_all(whole)
        if problems:
            raise problems[0]
        answered = [self.manner.of == "conversation" and bool(record.answers) for record in records]
        prompts = [self.place(one.prompt) if self.place else one.prompt for one in examples]
        return [p + one.answers[0].ids * said for p, one, said in zip(prompts, examples, answered, strict=True)]

    def _pooled(self, ids: Sequence[Sequence[int]]) -> Any:
        """(n, H). Padding stands on the right, where a causal model does not see it."""
        import torch

        longest = max(map(len, ids))
        padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids], device=self.model.device)
        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        state = getattr(causal, causal.base_model_prefix)(input_ids=padded, use_cache=False).last_hidden_state
        length = torch.tensor([len(row) for row in ids], device=state.device)
        if self.manner.pooling == "last":
            return state[torch.arange(len(ids), device=state.device), length - 1]
        there = torch.arange(longest, device=state.device) < length[:, None]
        return (state.float() * there[..., None]).sum(1) / length[:, None]


class Sentences:
    """Vectors of a sentence-transformers model, which pools by its own rule."""

    def __init__(self, model: str, manner: Manner) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise ModelError(
                "sentence-transformers is not installed.",
                where="encoder=sentence-transformers",
                instead="pip install grainline[select].",
            )
        from sentence_transformers import SentenceTransformer

        device = None if manner.device == "auto" else manner.device
        dtype = {} if manner.dtype == "auto" else {"dtype": manner.dtype}
        self.model = SentenceTransformer(model, device=device, model_kwargs={"use_safetensors": True, **dtype})
        self.model.max_seq_length = min(manner.max_length, self.model.max_seq_length or manner.max_length)
        self.manner, self.name = manner, f"sentence-transformers {fingerprint(self.model)} {manner}"

    def key(self, item: Record) -> bytes:
        return _of(item)

    def __call__(self, items: Sequence[Record]) -> Array:
        texts = [words(record, self.manner.of) for record in items]
        return self.model.encode(texts, show_progress_bar=False, convert_to_numpy=True)


def fingerprint(model: Any) -> str:
    """sha256 of a model's weights, those of its adapter (which models.fingerprint leaves out) among them."""
    digest = hashlib.sha256(models.fingerprint(model).encode())
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        for name, tensor in sorted(get_peft_model_state_dict(model, save_embedding_layers=False).items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def words(record: Record, of: str) -> str:
    """A record as plain text, turn after turn."""
    prompt = [record.prompt] if isinstance(record.prompt, str) else [str(t.get("content", "")) for t in record.prompt]
    said = [answer.text for answer in record.answers[:1]] if of == "conversation" else []
    return "\n\n".join(prompt + said)


def _by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Which rows are read together: the longest first, so that little is padded."""
    waiting = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while waiting:
        several = max(1, TOKENS // lengths[waiting[0]])
        yield waiting[:several]
        waiting = waiting[several:]


def _of(record: Record) -> bytes:
    return _digest([record.prompt, record.answers[:1], record.tools, record.template])


def _digest(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True, sort_keys=True, default=str).encode()).digest()
