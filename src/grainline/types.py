"""The currency: everything that passes from room to room, in the order in which it comes to be.

::

    Record    text: a prompt and its answers            data/        -> curation, check
    Example   tokens: the same record, tokenised        data/        -> supervision/ fills the weights
    Batch     tensors: examples as question trees       data/        -> forward/
    LogProbs  nats per answer token                     forward/     -> objectives/
    Losses    per-row losses, not reduced               objectives/  -> trainer.py

Letters in shapes: ``N`` tokens of a packed row, ``M`` answer tokens of all distinct answers, ``B`` rows that an
objective sees, ``P`` pairs (``B = 2 P``, chosen rows first), ``T`` tokens of the longest answer, ``S`` segments,
``A`` aspects. Log-probabilities are in nats; for rewards and margins higher is better.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

T = TypeVar("T")

Layout = Literal["tree", "packed", "padded"]
"""How answers are laid out for the model: see ``data/collate.py``."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """Decorator of every method: a frozen keyword-only value that validates itself. A string literal under a field
    is its documentation (``grainline show`` prints it, editors read it from the schema)."""
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    made = dataclass(frozen=True, kw_only=True, config=config)(cls)
    validate = made.__init__

    @functools.wraps(validate)
    def keywords_alone(self: Any, **options: Any) -> None:
        validate(self, **options)

    # pydantic forgets kw_only wherever a default is a Field: AdamW(1e-3, 0.9) would set lr and eps.
    made.__init__ = keywords_alone  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


class Span(NamedTuple):
    """A stretch of an answer and what somebody said of it."""

    start: int  # characters into the answer's text, inclusive
    stop: int  # characters, exclusive
    aspect: str  # what is judged: "correctness", "safety", ...; "" when the data names none
    score: float  # from 0 (wrong) to 1 (right); data on another scale says so in ``score_range``


class Answer(NamedTuple):
    """One answer, as it was written."""

    text: str  # what the assistant says; character spans count from its start
    spans: tuple[Span, ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()  # the chat turns when the answer is more than one plain text


class Record(NamedTuple):
    """One row of preference data. ``answers`` is (chosen, rejected) for a pair, (completion,) for a labelled row."""

    id: str
    prompt: str | tuple[Mapping[str, Any], ...]  # plain text, or the chat turns before the answer
    answers: tuple[Answer, ...]
    label: bool | None = None  # labelled rows only: is this answer desirable?
    weight: float = 1.0  # how often this row counts: 2.0 is the row, twice
    margin: float | None = None  # how much better chosen is, on the data's own scale
    tools: tuple[Mapping[str, Any], ...] | None = None
    template: Mapping[str, Any] | None = None  # chat_template_kwargs of this row
    where: str = ""  # "file:row", for messages
    numbers: tuple[tuple[str, float], ...] = ()  # further columns that hold a number, for objectives that ask for one

    @property
    def is_pair(self) -> bool:
        return self.label is None


class AnswerTokens(NamedTuple):
    """One answer in tokens. All sequences are as long as ``ids``."""

    ids: tuple[int, ...]  # ends with the end-of-turn token
    offsets: tuple[tuple[int, int], ...]  # characters of Answer.text under each token; (n, n) on template tokens
    weight: tuple[float, ...]  # how loudly each token speaks; 1.0 = plain
    segment: tuple[int, ...] | None = None  # segment of each token
    score: tuple[float, ...] | None = None  # (S,) of each segment, aspects combined; higher is better


class Example(NamedTuple):
    """A record in tokens: what the model sees at inference is ``prompt + answer``."""

    record: Record
    prompt: tuple[int, ...]
    answers: tuple[AnswerTokens, ...]
    others: tuple[AnswerTokens, ...] = ()  # answers to other prompts, for an objective that needs them: one an answer


class Tree(NamedTuple):
    """Where one question stands in a packed row: the prompt once, then each answer once."""

    start: int
    prompt: int  # tokens
    branches: tuple[int, ...]  # tokens of each answer

    @property
    def stop(self) -> int:
        return self.start + self.prompt + sum(self.branches)


class Pairs(NamedTuple):
    """What an objective may know of the pairs beside their log-probs."""

    ids: tuple[str, ...]
    weight: Tensor  # (P,)
    margin: Tensor  # (P,) NaN where the data has none
    aspects: tuple[str, ...] = ()  # what the data judges: "safety", ...
    better: Tensor | None = None  # (P, A) in that aspect: 1 chosen is better, -1 rejected is, 0 neither
    columns: tuple[str, ...] = ()  # further columns that hold a number in some row
    numbers: Tensor | None = None  # (P, columns) NaN where a row has none

    def number(self, column: str) -> Tensor:
        """(P,) what the data says in ``column``; NaN where it says nothing."""
        if self.numbers is None or column not in self.columns:
            return self.weight.new_full(self.weight.shape, float("nan"))
        return self.numbers[:, self.columns.index(column)]

    def by_aspect(self) -> Iterator[tuple[str, Tensor]]:
        """Each aspect with its column of ``better``."""
        return zip(self.aspects, [] if self.better is None else self.better.unbind(-1), strict=True)


class Rows(NamedTuple):
    """What an objective may know of labelled rows beside their log-probs."""

    ids: tuple[str, ...]
    weight: Tensor  # (B,)
    label: Tensor  # (B,) bool, True = desirable


class Batch(NamedTuple):
    """Examples laid out for one forward, and how an objective reads the result."""

    ids: Tensor  # (1, N) packed, or (answers, L) padded; int64
    positions: Tensor  # like ids
    trees: tuple[Tree, ...]  # packed rows only; () when padded
    source: Tensor  # (M,) int64, which flattened position predicts answer token m
    target: Tensor  # (M,) int64, the answer token
    rows: Tensor  # (B, T) int64 into M; -1 outside
    weight: Tensor  # (B, T) float32, 0 outside
    facts: Pairs | Rows
    keys: tuple[str, ...]  # (B,) content address of each row's (prompt, answer) tokens
    segment: Tensor | None = None  # (B, T) int64, -1 outside; where the supervision makes segments
    score: Tensor | None = None  # (B, S) float32, NaN where the answer has fewer segments

    def logprobs(self, token: Tensor) -> LogProbs:
        """``token`` (B, T) as what a model says of these answers, with all that the batch knows of them."""
        score = None if self.score is None else self.score.to(token.dtype)
        return LogProbs(token, self.rows >= 0, self.weight.to(token.dtype), self.segment, score)

    def to(self, device: Any) -> Batch:
        """The same batch with every tensor on ``device``."""
        import torch

        def move(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.to(device, non_blocking=True)
            return type(value)(*map(move, value)) if isinstance(value, (Pairs, Rows)) else value

        return Batch(*map(move, self))


class LogProbs(NamedTuple):
    """What one model says of the answers. For pairs the rows are [chosen; rejected]."""

    token: Tensor  # (B, T) nats, log p(token | prompt, tokens before it); 0 outside the answer
    mask: Tensor  # (B, T) bool, True on answer tokens
    weight: Tensor  # (B, T) how loudly each token speaks; 1.0 = plain, 0 outside
    segment: Tensor | None = None  # (B, T) int64, -1 outside; for objectives that need "segments"
    score: Tensor | None = None  # (B, S) of each segment, higher is better; NaN where there are fewer
    kl: Tensor | None = None  # (B, T) nats, KL(reference || policy) over the vocabulary where the token is predicted
    concentration: Tensor | None = None  # (B, T) nats, log sum_v p(v)^2 where the token is predicted, without gradient
    hidden: Tensor | None = None  # (B, T, L, H) what the model held where it predicts the token; L = 1: final state
    activations: Tensor | None = None  # (B, T, F, K) means of its activations by family; NaN where a family has fewer
    heads: Mapping[str, Tensor] | None = None  # (B, T) each: what the objective's own modules say

    def whole(self) -> LogProbs:
        """The same answers with every token counting 1, whatever the supervision said."""
        return self._replace(weight=self.mask.to(self.token.dtype))


class Term(NamedTuple):
    """One summand of a loss: the step adds ``coefficient * sum(value) / sum(count)`` over the whole optimizer step."""

    value: Tensor  # (P,) or (B,), not reduced
    count: Tensor  # type: ignore[assignment]  # same shape: 1 per pair, tokens for token means; depends on masks and weights alone
    coefficient: float = 1.0


class Losses(NamedTuple):
    """What an objective answers: losses per row, never reduced (the trainer owns the mean)."""

    terms: Mapping[str, Term]
    margin: Tensor | None  # (P,) implied reward of chosen minus rejected, nats, detached; None without pairs
    log: Mapping[str, Tensor]  # further detached values per row, averaged into the metrics under their names
    state: Mapping[str, Tensor] = MappingProxyType(
        {}
    )  # numbers an objective carries from step to step: what they are after this one


class Dims(NamedTuple):
    """Sizes of a model, as an objective's own modules are built for it."""

    hidden: int  # numbers in a hidden state
    layers: int
    vocabulary: int


class Seen(NamedTuple):
    """What an objective's own modules look at: the reference, at every answer token."""

    reference: LogProbs  # with the hidden states that the objective needs
    target: Tensor  # (B, T) int64, the answer tokens; anything outside
    logits: Callable[[Tensor], Tensor]  # (n, H) final hidden states -> (n, V) the reference's logits, float32 or wider


TIE = 1e-5
"""Two answers closer than this (nats) are tied: before training every margin is rounding."""


NEUTRAL = 0.5
"""The score of text that nobody judged: half-way between wrong (0) and right (1)."""


def wins(difference: Tensor) -> Tensor:
    """1 where positive, 0 where negative, one half at a tie."""
    return 0.5 + 0.5 * difference.sign() * (difference.abs() > TIE)


class Tagged(NamedTuple):
    """A trainable tensor and its role in the method: optimizers group by role, never by parsing names."""

    name: str
    tensor: Parameter
    role: str  # "down", "up", "magnitude", "angle", "spectrum", "weight", "mask", "noise", ...
