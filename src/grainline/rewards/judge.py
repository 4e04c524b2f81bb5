r"""A model asked over the network: any OpenAI-compatible endpoint scores each piece, or says which answer is better.

One request an answer: its pieces are numbered, and the model answers with a score for each piece and aspect on the
rubric's scale, as 2D-DPO's authors had GPT-4 do (arXiv:2410.19720: that a judge scored segments by aspects with
hand-written rubrics is known; our rubric, prompts and format are our own). Two answers are compared in both orders,

.. math:: P(\text{first is better}) = \tfrac12 \bigl(v(a, b) + 1 - v(b, a)\bigr), \qquad
    v \in \{0, \tfrac12, 1\}

so a judge that prefers a *place* says 1/2. With ``samples`` the scores are the mean of as many replies, and the spread
their standard deviation (over n - 1).

A reply that is not exactly as asked (``_verdicts.py``) is shown to the model once with the complaint; if that does not
help, or the endpoint does not answer, the answer's scores are NaN, a duel is a tie, and it is counted: ``tally`` and
the sentence at the end say how many, and what the first was. Every reply is kept (``endpoint.py``), so whatever
interrupts a job, the next one pays for the rest alone. Units: the rubric's scale; US dollars.

Raises, when opened or asked: :class:`grainline.errors.SpecError` (no model, no such rubric, an aspect that it does not
explain), :class:`grainline.errors.ModelError` (the endpoint refuses), :class:`grainline.errors.TrainingError` (it fell
silent, or the budget is spent).
"""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from grainline.rewards import _rubric, _verdicts
from grainline.rewards._seam import Asked, Desk, Duel, Scores
from grainline.rewards._spread import mean_and_spread
from grainline.types import spec

if TYPE_CHECKING:
    from grainline.endpoint import Endpoint, Message, Tally

Verdict = TypeVar("Verdict")


@spec
class Judge:
    paper: ClassVar[str] = "arXiv:2410.19720"
    needs: ClassVar[frozenset[str]] = frozenset({"endpoint"})

    model: str = ""
    """The model, as the endpoint calls it."""
    base_url: str = ""
    """The endpoint's address, up to and with /v1; without it $OPENAI_BASE_URL, else OpenAI's own."""
    rubric: str = "quality"
    """What the judge is told: a packaged rubric, or a path to a .yaml file."""
    samples: int = Field(1, ge=1)
    """Replies for each question; more than one gives a spread."""
    temperature: float | None = Field(0.0, ge=0)
    """Of the model's sampling; null: the endpoint's own."""
    max_tokens: int | None = Field(2048, ge=1)
    """Longest reply, in tokens; null: the endpoint's own."""
    response_format: Literal["text", "json_object"] = "text"
    """What is asked of the endpoint: json_object where it can hold the model to JSON."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request's body; one that is null is left out."""
    swap: bool = True
    """Compare two answers in both orders; without it a judge's liking for a place goes through, at half the price."""
    repairs: int = Field(1, ge=0, le=3)
    """How often the model is shown a reply that cannot be read and what is wrong with it."""
    at_once: int = Field(8, ge=1)
    """Requests under way at the same time."""
    retries: int = Field(5, ge=0)
    """Further tries of a request that failed for a reason that passes."""
    wait: float = Field(1.0, gt=0)
    """Seconds before the first of them; each pause doubles the last."""
    timeout: float = Field(120.0, gt=0)
    """Seconds that one reply may take."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. The key itself is written nowhere."""
    price_in: float | None = Field(None, ge=0)
    """US dollars per million tokens of questions; null: tokens are counted, money is not."""
    price_out: float | None = Field(None, ge=0)
    """US dollars per million tokens of replies."""
    budget: float | None = Field(None, gt=0)
    """US dollars at which the job stops; requests under way are still paid, and what was answered is kept."""

    @model_validator(mode="after")
    def _options_go_together(self) -> Judge:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples at temperature 0 are one sample several times: set a temperature")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out go together")
        if self.budget is not None and self.price_in is None:
            raise ValueError("a budget needs price_in and price_out")
        return self

    @property
    def between(self) -> tuple[float, float]:
        """The rubric's scale."""
        return _rubric.rubric(self.rubric).scale

    @property
    def reads(self) -> tuple[str, ...]:
        """A rubric of the user's own."""
        return (self.rubric,) if _rubric.is_path(self.rubric) else ()

    @contextmanager
    def open(self, desk: Desk) -> Iterator[Judging]:
        from grainline import progress
        from grainline.endpoint import Access, Endpoint
        from grainline.ledger import Ledger

        told = _rubric.rubric(self.rubric)
        access = Access(**{name: getattr(self, name) for name in Access._fields})
        with Endpoint(self.model, access, Ledger(desk.folder / "judge.jsonl"), self._body(desk.seed)) as endpoint:
            judging = Judging(self, told, endpoint)
            try:
                yield judging
            finally:  # what was paid is said of a job that failed, too
                progress.say(f"judge {self.model}, rubric {told.name}: {judging.tally}", quiet=desk.quiet)

    def _body(self, seed: int) -> Mapping[str, Any]:
        form = {"type": "json_object"} if self.response_format == "json_object" else None
        return {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": seed,
            "response_format": form,
        } | self.extra


class Judging:
    """An opened judge; ``tally`` says what has become of the questions so far."""

    def __init__(self, spec: Judge, told: _rubric.Rubric, endpoint: Endpoint) -> None:
        self._spec, self._told, self._endpoint = spec, told, endpoint
        self.tally = Verdicts(endpoint.tally)

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        return self._endpoint.in_order(self._score, asked)

    def compare(self, duels: Iterable[Duel]) -> Iterator[float]:
        return self._endpoint.in_order(self._compare, duels)

    def _score(self, asked: Asked) -> Scores:
        aspects, shown = _rubric.names(self._told, asked.aspects), _rubric.judged(asked)
        form = _verdicts.how_to_score(len(shown), aspects, self._told.scale, reason=self._told.reason)
        messages = _rubric.scoring(self._told, asked, form)

        def read(text: str) -> list[tuple[float, ...]]:
            return _verdicts.scores(text, len(shown), aspects, self._told.scale)

        found = self._samples(messages, read) if shown else []
        self.tally.count(answers=1, failed=not found)
        unknown = (math.nan,) * len(aspects)
        placed = [dict(zip(shown, rows, strict=True)) for rows in found or [[unknown] * len(shown)]]
        opinions = [Scores(tuple(rows.get(s, unknown) for s in range(len(asked.pieces)))) for rows in placed]
        return mean_and_spread(opinions) if self._spec.samples > 1 else opinions[0]

    def _compare(self, duel: Duel) -> float:
        form = _verdicts.how_to_compare(reason=self._told.reason)
        turned = Duel(duel.prompt, duel.second, duel.first)
        votes = [self._samples(_rubric.comparing(self._told, duel, form), _verdicts.preference)]
        if self._spec.swap:
            other = self._samples(_rubric.comparing(self._told, turned, form), _verdicts.preference)
            votes.append([1 - vote for vote in other])
        decided = all(votes)  # a verdict in one order alone may be a liking for a place
        means = [statistics.fmean(order) for order in votes] if decided else [0.5]
        self.tally.count(duels=1, failed=not decided, split=min(means) < 0.5 < max(means))
        return statistics.fmean(means)

    def _samples(self, messages: Sequence[Message], read: Callable[[str], Verdict]) -> list[Verdict]:
        """What was readable of the spec's number of replies."""
        drawn = (self._verdict(messages, read, draw) for draw in range(self._spec.samples))
        return [verdict for verdict in drawn if verdict is not None]

    def _verdict(self, messages: Sequence[Message], read: Callable[[str], Verdict], draw: int) -> Verdict | None:
        from grainline.endpoint import Unanswered

        said = list(messages)
        for tried in range(self._spec.repairs + 1):
            try:
                reply = self._endpoint.ask(said, draw=draw, about=self._told.about)
            except Unanswered as error:
                why = str(error)
                break
            try:
                verdict = read(reply.text)
            except _verdicts.Unreadable as error:
                why = f"{'it ended at max_tokens; ' if reply.cut else ''}{error}"
                said += [{"role": "assistant", "content": reply.text or "(nothing)"}, _verdicts.complaint(why)]
                continue
            self.tally.count(repaired=tried > 0)
            return verdict
        self.tally.lose(why)
        return None


@dataclass
class Verdicts:
    """What became of the questions."""

    network: Tally  # requests, retries, tokens, money
    answers: int = 0
    duels: int = 0
    split: int = 0  # duels whose two orders contradict each other
    failed: int = 0  # answers and duels left without any verdict
    repaired: int = 0  # replies that were readable when asked again
    lost: int = 0  # replies that stayed unreadable, or never came
    first_loss: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)

    def lose(self, why: str) -> None:
        self.count(lost=1)
        self.first_loss = self.first_loss or why

    def __str__(self) -> str:
        parts = [f"{self.answers} answers"] if self.answers or not self.duels else []
        parts += [f"{self.duels} duels, {self.split} of them decided by the order"] if self.duels else []
        parts += [f"{self.failed} NOT JUDGED"] if self.failed else []
        parts += [f"{self.repaired} replies repaired"] if self.repaired else []
        parts += [f"{self.lost} replies lost, the first: {self.first_loss}"] if self.lost else []
        return f"{', '.join(parts)}; {self.network}"
