r"""Any reward model of the Hugging Face hub: a sequence classifier that reads prompt and answer, and says a number.

A causal one reads the conversation as its chat template writes it; one of BERT's kind, prompt and answer as a pair.
Its logit (or the logit of one ``label``) is the score: in nats of Bradley and Terry's model where it was trained by
that, and duels are decided so. Logits have no bounds; ``squash`` makes probabilities of them, which have.

A piece of an answer is scored by reading the answer up to its end,

.. math:: v_k = r(x, y_{\le k}) \qquad \text{(\texttt{segments=upto})}, \qquad
    g_k = v_k - v_{k-1},\; v_0 = r(x, \text{""}) \qquad \text{(\texttt{segments=gain})}

one forward a piece: what is there so far, or what this piece added. Reward models are trained on whole answers, so
values of unfinished ones are a stretch, and gains are noisy (ours; process reward models are made for it).

Rows are batched by length, padded on the right behind their masks. Nothing is cut: a row longer than the model can read
is NaN. Logits are kept on disk by the model's fingerprint and the row's tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from grainline.errors import ModelError, SpecError, nearest
from grainline.rewards._parts import bradley_terry, higher, windows
from grainline.rewards._seam import Asked, Desk, Duel, Prompt, Scores, wholes
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.models import LoadedModel


@spec
class Model:
    needs: ClassVar[frozenset[str]] = frozenset({"model", "torch"})

    model: str = ""
    """A sequence classifier: hub id or folder."""
    revision: str | None = None
    """Of a hub id."""
    label: str | int | None = None
    """Which output is the score, by name or number; null = the only one."""
    squash: bool = False
    """Say probabilities: sigma of the only logit, or softmax over all labels; between 0 and 1."""
    segments: Literal["upto", "gain"] = "upto"
    """Of a piece: the answer up to its end, or what the piece added to that."""
    form: Literal["auto", "chat", "pair", "text"] = "auto"
    """How prompt and answer are put together: by the chat template; as a pair of texts; one text after the other.
    auto = chat where the prompt is chat turns and there is a template; pair where the tokenizer separates; or text."""
    max_length: int | None = Field(None, ge=2)
    """Tokens that the model is shown at most; null = as many as it has positions."""
    max_tokens: int = Field(8192, ge=1)
    """Tokens with padding that are read at once; sets speed and memory."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The model is held in."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    @property
    def between(self) -> tuple[float, float] | None:
        return ((0.0, 1.0) if self.segments == "upto" else (-1.0, 1.0)) if self.squash else None

    @property
    def reads(self) -> tuple[str, ...]:
        """The weights, where they lie in a folder."""
        return (self.model,) if self.model else ()

    @contextlib.contextmanager
    def open(self, desk: Desk) -> Iterator[Judging]:
        from grainline import models

        if not self.model:
            raise SpecError("no reward model is named.", where="model", instead="Write model:model=ORG/NAME.")
        choice = models.Choice(self.model, self.revision, dtype=self.dtype, device=self.device)
        yield Judging(self, models.load(choice, kind="AutoModelForSequenceClassification"), desk)


class _Row(NamedTuple):
    """What the model is shown."""

    ids: tuple[int, ...]
    types: tuple[int, ...] | None  # of a pair: which of both texts each token belongs to

    @property
    def key(self) -> str:
        said = array("q", self.ids).tobytes() + b"|" + array("q", self.types or ()).tobytes()
        return hashlib.sha256(said).hexdigest()


class Judging:
    """An opened reward model."""

    def __init__(self, spec: Model, loaded: LoadedModel, desk: Desk) -> None:
        from grainline import models
        from grainline.shelf import Shelf

        self._spec, self._model, self._tokenizer = spec, loaded.model, loaded.tokenizer
        fingerprint = models.fingerprint(self._model)
        self._shelf = Shelf(desk.folder / "logits" / f"{fingerprint[:24]}-{str(loaded.dtype).removeprefix('torch.')}")
        self._label = _label(spec, self._model.config)
        self._longest = spec.max_length or _longest(self._model)
        self.facts: Mapping[str, Any] = {"model": spec.model, "fingerprint": fingerprint}

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        for window in windows(asked, lambda one: one.prompt):
            rows = [self._rows(one) for one in window]
            self._fill([row for part in rows for row in part if row is not None])
            for one, part in zip(window, rows, strict=True):
                said = [math.nan if row is None else self._say(self._shelf[row.key][0]) for row in part]
                if self._spec.segments == "gain":
                    said = [after - before for before, after in itertools.pairwise(said)]
                yield Scores(tuple((value,) * len(one.aspects) for value in said))

    def compare(self, duels: Iterable[Duel]) -> Iterator[float]:
        """Bradley and Terry's model on logits; of probabilities the larger wins."""
        return itertools.starmap(higher if self._spec.squash else bradley_terry, wholes(self, duels))

    # ------------------------------------------------------------------------------------------------- what is shown

    def _rows(self, one: Asked) -> list[_Row | None]:
        """The answer up to the end of each piece, for gains before all of them too; None where it is too long."""
        ends = [0, *(stop for _, stop in one.pieces)] if self._spec.segments == "gain" else [b for _, b in one.pieces]
        rows = [self._row(one.prompt, one.answer[:end]) for end in ends]
        return [row if len(row.ids) <= self._longest else None for row in rows]

    def _row(self, prompt: Prompt, answer: str) -> _Row:
        form = self._spec.form
        chat = not isinstance(prompt, str)
        if form == "auto":
            separates = self._tokenizer.sep_token_id is not None
            form = "chat" if chat and self._tokenizer.chat_template else "pair" if separates else "text"
        if form == "chat":
            return self._chat(prompt, answer)
        words = prompt if isinstance(prompt, str) else "\n".join(str(turn.get("content") or "") for turn in prompt)
        texts = (words, answer) if form == "pair" else (words + answer if not chat else f"{words}\n{answer}",)
        found = self._tokenizer(*texts, truncation=False, verbose=False)
        return _Row(tuple(found["input_ids"]), tuple(found["token_type_ids"]) if "token_type_ids" in found else None)

    def _chat(self, prompt: Prompt, answer: str) -> _Row:
        if not self._tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template.", where=self._spec.model, instead="Set form=pair.")
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]
        said = [*turns, {"role": "assistant", "content": answer}]
        return _Row(tuple(self._tokenizer.apply_chat_template(said, tokenize=True, return_dict=False)), None)

    # ------------------------------------------------------------------------------------------------------- reading

    def _fill(self, rows: Sequence[_Row]) -> None:
        """Read what is not there. Batches are planned as if nothing was, so that an interruption changes none."""
        for batch in _batches({row.key: row for row in rows}.values(), self._spec.max_tokens):
            if any(row.key not in self._shelf for row in batch):
                read = zip(batch, self._read(batch), strict=True)
                self._shelf.add({row.key: logits[None] for row, logits in read if row.key not in self._shelf})

    def _read(self, batch: Sequence[_Row]) -> Tensor:
        """(rows, labels) logits, float32."""
        import torch

        text = self._model.config.get_text_config()
        configured = text.pad_token_id
        pad = _absent(batch, text.vocab_size) if configured is None else configured
        longest = max(len(row.ids) for row in batch)

        def table(part: Any, outside: int) -> Tensor:
            return torch.tensor([[*p, *[outside] * (longest - len(p))] for p in part], device=self._model.device)

        shown = {
            "input_ids": table([row.ids for row in batch], pad),
            "attention_mask": table([[1] * len(row.ids) for row in batch], 0),
        }
        if all(row.types is not None for row in batch):
            shown["token_type_ids"] = table([row.types for row in batch], 0)
        text.pad_token_id = pad
        try:
            with torch.no_grad():
                return self._model(**shown).logits.float().cpu()
        finally:
            text.pad_token_id = configured

    def _say(self, logits: Tensor) -> float:
        if not self._spec.squash:
            return float(logits[self._label])
        return float(logits.sigmoid()[0] if len(logits) == 1 else logits.softmax(-1)[self._label])


def _longest(model: Any) -> int:
    """Tokens that a model has positions for. RoBERTa's kind counts from behind the position of its padding."""
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    tables = (part for name, part in model.named_modules() if name.endswith("position_embeddings"))
    behind = (padding + 1 for table in tables if (padding := getattr(table, "padding_idx", None)) is not None)
    return int(places) - max(behind, default=0)


def _absent(batch: Sequence[_Row], vocabulary: int) -> int:
    """An id that no row holds. A classifier on a decoder looks for the last token that is not padding, and of a model
    that has no padding of its own the last token may be any."""
    held = {id for row in batch for id in row.ids}
    return next(id for id in range(vocabulary) if id not in held)


def _batches(rows: Iterable[_Row], max_tokens: int) -> Iterator[list[_Row]]:
    """Rows of like length together."""
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: (len(row.ids), row.ids)):
        if batch and (len(batch) + 1) * len(row.ids) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _label(spec: Model, config: Any) -> int:
    """The number of the output that is the score."""
    names = {str(name): int(number) for number, name in config.id2label.items()}
    if spec.label is None:
        if config.num_labels != 1:
            raise SpecError(
                f"it has {config.num_labels} outputs.",
                where=f"model:label of {spec.model}",
                instead=f"Say which is the score: {', '.join(names)}.",
            )
        return 0
    if isinstance(spec.label, int) and 0 <= spec.label < config.num_labels:
        return spec.label
    if str(spec.label) not in names:
        raise SpecError(f"no output {spec.label!r}.", where="model:label", instead=nearest(str(spec.label), names))
    return names[str(spec.label)]
