"""Several answers to each prompt, by a model at hand or behind a server; they are not scored yet.

``model`` is a name as everywhere (alias, folder, hub id), a saved adapter, or the folder of a run, whose policy then
answers: on-policy data. With ``base_url`` it is what an OpenAI-compatible server, such as vLLM, calls its model.

An answer is ``{"text", "model", "finish"}``; ``finish`` is "stop", or "length" where it was cut off. Those that say
nothing are left out; a row without any is dropped. Answers that a row has already stay before the new ones.

A model at hand reads each prompt once for all of its answers, many prompts together (:mod:`grainline.generation`). An
answer is drawn with luck made of the seed, its prompt and its number, so it is the same in any company and after any
interruption. A server is asked for one answer a request (seed and number in it; whether it heeds them is its own
affair), and each reply is kept, so nothing is asked or paid twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from grainline.curation._answering import Answer, Answers, Voice, answering
from grainline.curation._seam import Bench, Dropped, Row, Step, signed
from grainline.rooms import text as written
from grainline.types import spec

if TYPE_CHECKING:
    from grainline.types import Record


@spec
class Generate(Voice):
    whole: ClassVar[bool] = False

    each: int = Field(4, ge=1)
    """Answers a prompt."""
    temperature: float = Field(0.8, ge=0)
    """Of the drawing; 0 = the likeliest token each time (DNPO's, with each=1)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability."""
    max_new_tokens: int = Field(256, ge=1)
    """Tokens of an answer at most."""
    own: bool = False
    """The row's own answers (chosen and rejected, completion...) stand before the new ones, with the model "data"."""

    @model_validator(mode="after")
    def _several_are_drawn(self) -> Generate:
        if self.each > 1 and self.temperature == 0:
            raise ValueError("each > 1 at temperature 0 is one answer several times")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"endpoint" if self.base_url else "model"})

    @property
    def reads(self) -> tuple[str, ...]:
        from grainline.curation._asking import weights

        return () if self.base_url else weights(self.model)

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        with answering(self, bench, each=self.each, top_p=self.top_p) as answer:
            yield _Making(self, answer)


class _Making:
    """The step, opened; ``answer`` gives the new answers to each record, in order."""

    def __init__(self, spec: Generate, answer: Answer) -> None:
        self.spec, self.answer = spec, answer

    def __call__(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        from grainline.curation._asking import question

        waiting: deque[tuple[Row, Record]] = deque()

        def records() -> Iterator[Record]:
            for row in rows:
                waiting.append((row, question(row)))
                yield waiting[-1][1]

        for new in self.answer(records()):
            yield self._row(*waiting.popleft(), new)

    def _row(self, row: Row, record: Record, new: Answers) -> Sequence[Row]:
        from grainline.curation._asking import is_answered
        from grainline.curation._parts import answers

        said = [answer for answer in new if answer["text"].strip()]
        if not said:
            return Dropped("no answer says anything")
        before = answers(row) if row.get("answers") else []
        if self.spec.own and is_answered(row):
            before += [{"text": one.text, "model": "data"} for one in record.answers]
        prompt = row.get("prompt") if row.get("prompt") is not None else record.prompt
        made = {**row, "prompt": prompt, "answers": [*before, *said]}
        cut = sum(answer["finish"] == "length" for answer in said)
        again = len(said) - len({answer["text"] for answer in said})
        facts = {"made": len(said), "again": again, "cut": cut, "missing": self.spec.each - len(said)}
        return [signed(made, written(self.spec), **facts)]

    def told(self, rows: Iterable[Row]) -> dict[str, Any]:
        """How many answers were made, say the same as another to their prompt, were cut off at their longest, and are
        missing: they said nothing, or the server did not answer."""
        total: Counter[str] = Counter()
        for row in rows:
            total.update({key: row["curation"][-1][key] for key in ("made", "again", "cut", "missing")})
        return dict(total)
