"""The interface of a reward: who scores an answer, piece by piece, aspect by aspect, and how sure it is.

A reward is a spec without weights (``rules:measure=length``, ``judge:model=...``, ``head:path=...``). It is opened
once, asked many times and closed::

    with spec.open(desk) as reward:
        for scores in reward.score(asked):          # one a question, in order
            scores.value[s][a], scores.spread

and says of itself

============  ======================================================================================================
``between``   (worst, best) that its scores lie between; None where they have no bounds (a reward model's logit). Scores
              become those of spans, 0 (wrong) to 1 (right), by it, and cannot without. Ask once: a file may be read
``reads``     optional: paths that it reads ("heads/qa"); with other bytes in them it is another reward. Members say
              theirs themselves
``needs``     what must be there: {"model"}, {"endpoint"}, {"torch"}; for ``grainline ls``
============  ======================================================================================================

Higher is better, always. A piece that a reward cannot judge is NaN, never a guess. Torch is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from grainline.rewards._parts import higher

Prompt = str | tuple[Mapping[str, Any], ...]


class Asked(NamedTuple):
    """One answer to be scored."""

    prompt: Prompt  # as in a Record: plain text, or the chat turns before the answer
    answer: str
    segments: tuple[tuple[int, int], ...] = ()  # pieces, [start, stop) in characters of the answer; () = the whole
    aspects: tuple[str, ...] = ("",)  # what to judge: "correctness", "safety", ...; "" = all in all

    @property
    def pieces(self) -> tuple[tuple[int, int], ...]:
        return self.segments or ((0, len(self.answer)),)


class Scores(NamedTuple):
    """What a reward says of one answer."""

    value: tuple[tuple[float, ...], ...]  # (S, A), higher is better; NaN where it cannot say
    spread: tuple[tuple[float, ...], ...] | None = None  # (S, A) one standard deviation; None: it does not know
    opinions: tuple[tuple[tuple[float, ...], ...], ...] | None = None  # (K, S, A) of its members, where it has some


class Desk(NamedTuple):
    """Where a reward works."""

    folder: Path  # what it keeps from one job to the next: answers of a judge, features of a model
    seed: int = 0
    quiet: bool = True  # no progress, no remarks


class Scoring(Protocol):
    """An opened reward.

    It may also have ``compare(duels) -> Iterator[float]`` where it judges two answers beside each other:
    how likely the first of each :class:`Duel` is the better one, 1/2 at a tie.
    """

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        """One result a question, in order; it may read ahead."""


class Duel(NamedTuple):
    """Two answers to one prompt."""

    prompt: Prompt
    first: str
    second: str


class Reward(Protocol):
    """A spec."""

    between: tuple[float, float] | None
    needs: frozenset[str]

    def open(self, desk: Desk) -> AbstractContextManager[Scoring]: ...


def compare(reward: Scoring, duels: Sequence[Duel]) -> list[float]:
    """How likely the first answer of each duel is the better one: the reward's own comparison, else 1, 1/2 or 0 by
    the scores of both as a whole. A duel whose scores are NaN is a tie."""
    if own := getattr(reward, "compare", None):
        return list(own(duels))
    return [higher(first, second) for first, second in wholes(reward, duels)]


def wholes(reward: Scoring, duels: Iterable[Duel]) -> Iterator[tuple[float, float]]:
    """The scores of both answers of each duel, all in all."""
    asked = (Asked(duel.prompt, answer) for duel in duels for answer in (duel.first, duel.second))
    said = (scores.value[0][0] for scores in reward.score(asked))
    return zip(said, said, strict=True)
