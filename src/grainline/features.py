r"""Frozen features: what a language model holds of pieces of an answer, one vector a piece, kept on disk.

A piece is read in its place, after the prompt and all that the answer says before it. Its vector is the hidden state of
its last token, or the mean over its tokens, after each chosen layer, one layer behind the other:

.. math:: f_s = \bigl[h^{(l)}_{\text{last token of } s}\bigr]_{l} \in \mathbb{R}^{L H}
    \qquad \text{or} \qquad \bigl[\tfrac{1}{|s|} \textstyle\sum_{t \in s} h^{(l)}_t\bigr]_{l}

Layers are named by their share of the depth: 0.5 is the middle, 1 the final state, after the last norm. Nothing above
the highest chosen layer is computed, and no vocabulary.

A file on disk holds the pieces of the answers of one forward, under addresses of model, tokens, pieces, layers and
pooling. Which answers share a forward depends on the list alone that is asked for, never on what is there already, and
a forward is kept whole or not at all: so a job that was killed gives the same bytes when it goes on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from grainline import models
from grainline.data.collate import collate, content_key, pack
from grainline.data.encode import Encoder
from grainline.errors import DataError
from grainline.progress import track
from grainline.shelf import Shelf
from grainline.types import Answer, Example, Layout, Record

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.forward import Scorer

Pool = Literal["mean", "last"]
MAX_LENGTH = 4096
"""Tokens of prompt and answer at most, where the model itself can read more."""


WINDOW = 128
"""Answers that are packed together; more would only take longer to sort."""


class Passage(NamedTuple):
    """An answer in its place, and the pieces that are asked for, [start, stop) in its characters."""

    prompt: Any  # plain text, or the chat turns before the answer
    answer: str
    pieces: tuple[tuple[int, int], ...]


class Taken(NamedTuple):
    """Which features."""

    layers: tuple[float, ...] = (0.5,)  # shares of the depth, above 0, at most 1
    pool: Pool = "last"
    max_tokens: int = 4096  # of a forward: sets speed and memory


class _Asked(NamedTuple):
    """A passage in tokens."""

    example: Example
    tokens: tuple[tuple[int, ...], ...]  # of each piece
    key: str


class Features:
    """Reads passages with one frozen model.

    Args:
        model: its weights, never changed.
        folder: where what was read is kept, by the model's fingerprint; None keeps nothing.
    """

    def __init__(self, model: models.LoadedModel, folder: Path | None, taken: Taken, *, quiet: bool = True) -> None:
        self.fingerprint = models.fingerprint(model.model)
        self.taken, self.quiet = taken, quiet
        self._model = model
        longest = getattr(model.model.config.get_text_config(), "max_position_embeddings", None) or MAX_LENGTH
        self._encode = Encoder(model.tokenizer, max_length=min(longest, MAX_LENGTH))
        kept = folder / f"{self.fingerprint[:24]}-{str(model.dtype).removeprefix('torch.')}" if folder else None
        self._shelf = Shelf(kept)
        self._layout: Layout | None = None
        self._scorer: Scorer

    @property
    def depth(self) -> int:
        return int(self._model.model.config.get_text_config().num_hidden_layers)

    @property
    def layers(self) -> tuple[int, ...]:
        """The chosen layers, counted from 1."""
        return tuple(max(1, round(share * self.depth)) for share in self.taken.layers)

    @property
    def width(self) -> int:
        return len(self.layers) * int(self._model.model.config.get_text_config().hidden_size)

    def __call__(self, passages: Sequence[Passage]) -> list[Tensor | None]:
        """(pieces, width) float32 of each passage; rows of NaN for pieces whose tokens were cut away; None where the
        passage cannot be read at all (no text, a template that refuses it)."""
        import torch

        asked = [self._asked(passage) for passage in passages]
        readable = {one.key: one for one in asked if one is not None}
        self._fill(list(readable.values()))
        found: list[Tensor | None] = []
        for one in asked:
            if one is None:
                found.append(None)
                continue
            there = self._shelf[one.key]
            whole = torch.full((len(one.tokens), self.width), math.nan)
            whole[[n for n, tokens in enumerate(one.tokens) if tokens]] = there
            found.append(whole)
        return found

    def _asked(self, passage: Passage) -> _Asked | None:
        record = Record("", passage.prompt, (Answer(passage.answer),), label=True)
        try:
            example = self._encode(record)
        except DataError:
            return None
        offsets = example.answers[0].offsets
        tokens = tuple(tokens_of(piece, offsets) for piece in passage.pieces)
        what = f"{content_key(example.prompt, example.answers[0].ids)} {tokens} {self.layers} {self.taken.pool}"
        return _Asked(example, tokens, hashlib.sha256(what.encode()).hexdigest())

    def _fill(self, asked: Sequence[_Asked]) -> None:
        """Read what is not there. Forwards are planned as if nothing was."""
        if all(one.key in self._shelf for one in asked):
            return
        layout = self._ready([one.example for one in asked])
        of = {id(one.example): one for one in asked}
        windows = ([one.example for one in asked[i : i + WINDOW]] for i in range(0, len(asked), WINDOW))
        plan = [part for some in windows for part in pack(some, max_tokens=self.taken.max_tokens, layout=layout)]
        missing = [part for part in plan if any(of[id(example)].key not in self._shelf for example in part)]
        for part in track(missing, "reading answers", quiet=self.quiet):
            read = self._read([of[id(example)] for example in part], layout)
            self._shelf.add({key: rows for key, rows in read.items() if key not in self._shelf})

    def _read(self, asked: Sequence[_Asked], layout: Layout) -> dict[str, Tensor]:
        """One forward: key -> (pieces that have tokens, width)."""
        import torch

        batch = collate([one.example for one in asked], rows="chosen", layout=layout).to(self._model.device)
        with torch.no_grad():
            states = self._scorer.states(batch, self.layers).flatten(1).float()  # (M, L H)
        found = {}
        for row, one in zip(batch.rows, asked, strict=True):
            # A token's own state is where the next token is predicted; the end of the turn is the last that is.
            pooled = [self._pooled(states, row, tokens) for tokens in one.tokens if tokens]
            found[one.key] = torch.stack(pooled).cpu() if pooled else states.new_empty(0, self.width).cpu()
        return found

    def _pooled(self, states: Tensor, row: Tensor, tokens: Sequence[int]) -> Tensor:
        after = row[[t + 1 for t in (tokens if self.taken.pool == "mean" else tokens[-1:])]]
        return states[after].mean(0)

    def _ready(self, examples: Sequence[Example]) -> Layout:
        """A scorer in the first layout that gives the plain model's own numbers."""
        from grainline.forward import Scorer, choose_layout, probe_length

        if self._layout is None:
            self._scorer = Scorer(self._model.model.requires_grad_(False).eval())
            self._scorer.fuse()
            wanted = probe_length(self._scorer.causal.config, MAX_LENGTH)
            few = sorted(examples, key=lambda e: abs(len(e.prompt) + len(e.answers[0].ids) - wanted))[:2]
            layouts: tuple[Layout, ...] = ("tree", "packed", "padded")
            batches = {name: collate(few, rows="chosen", layout=name).to(self._model.device) for name in layouts}
            self._layout = choose_layout(self._scorer, batches, layouts).layout
        return self._layout


def tokens_of(piece: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The tokens of a piece: those whose last character stands in it, else the one that it stands in.

    Without the token that ends the turn, and without those of the template. () where the piece was cut away.
    """
    words = [(t, start, stop) for t, (start, stop) in enumerate(offsets[:-1]) if start < stop]
    own = tuple(t for t, _, stop in words if piece[0] < stop <= piece[1])
    return own or tuple(t for t, start, stop in words if start <= piece[0] and piece[1] <= stop)[:1]
