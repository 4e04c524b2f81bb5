"""Contrastive pairs by revision: a stronger model mends an answer with few changes, and the mended one is chosen.

D'Oosterlinck et al. 2024 (CLAIR), arXiv:2408.06266: the two answers of a pair then differ in what makes one better and
in little else. As released: a teacher corrects a student's answer, minimally, reasons first and leaves no trace of it;
the revision becomes ``chosen``, the original ``rejected``; temperature 0.7; what is revised is the answer with the
lowest score. The wording is ours. ``template=worse`` goes the other way: a mistake is planted, and the original is
chosen. Who revises is

==============  ======================================================================================================
a model         at hand, or a run (``model``), or behind any OpenAI-compatible address (``base_url``), which is asked
                once for each answer and never paid twice
``by=data``     people: ``chosen`` is their correction of ``rejected`` already; it is measured and bounded alone
==============  ======================================================================================================

A reply is read strictly (``_revision.py``), and a row of which no revision could be read is dropped and counted under
its reason. The release has no such branch: its parser fails on a reply without its mark. How much was changed,
Levenshtein's distance in words, stands in ``edit_distance`` and, as a share of the longer answer's words,
``edit_share``; ``most`` drops what was written anew (ours). The model's reasoning is kept in ``revision_reason``.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field

from grainline.curation._answering import Answer, Answers, Voice, answering
from grainline.curation._edits import Unit, changes
from grainline.curation._parts import every, paired, record
from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.data import fields
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import Record, spec


@spec
class Revise(Voice):
    whole: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2408.06266"

    by: Literal["model", "data"] = "model"
    """Who revised: model = who is asked now; data = chosen is a correction of rejected already."""
    template: str = "better"
    """What the model is told: better, worse, or a path to a .yaml file."""
    of: Literal["worst", "all"] = "worst"
    """worst = a pair's rejected answer, of several the one with the lowest score; all = each, a pair for each."""
    most: float = Field(1.0, gt=0, le=1)
    """Drop a pair of which a larger share of words was changed; 1 = keep all."""
    unit: Unit = "words"
    """What changes are counted in: words, or characters where no space stands between words."""
    temperature: float = Field(0.7, ge=0)
    """Of the drawing; 0.7 as released; 0 = the likeliest token each time."""
    max_new_tokens: int = Field(1024, ge=1)
    """Tokens of a reply at most, reasoning included; one that is cut off is not used. 4096 as released."""

    @property
    def needs(self) -> frozenset[str]:
        if self.by == "data":
            return frozenset({"pairs"})
        return frozenset({"endpoint" if self.base_url else "model"})

    @property
    def reads(self) -> tuple[str, ...]:
        """Files that decide what is made: a template of one's own, weights of a model at hand."""
        from grainline.curation._asking import weights
        from grainline.curation._revision import FOLDER, path_of

        if self.by == "data":
            return ()
        own = path_of(self.template)
        template = (str(own),) if own.parent != FOLDER else ()
        return template if self.base_url else (*template, *weights(self.model))

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        if self.by == "data":
            yield _Measuring(self)
            return
        with answering(self, bench, whole=True) as answer:
            yield _Revising(self, answer)

    def pair(
        self, row: Row, revised: Row, initial: Row, *, worse: bool = False, **facts: Any
    ) -> dict[str, Any] | Dropped:
        """The row as a pair of a revision and what it revises."""
        found = changes(initial["text"], revised["text"], self.unit)
        if not found.distance:
            return Dropped("the revision changes nothing")
        if found.share > self.most:
            return Dropped("the revision changes too much")
        made = paired(row, initial, revised) if worse else paired(row, revised, initial)
        made |= {"edit_distance": found.distance, "edit_share": round(found.share, 4)}
        return signed(made, written(self), **facts)


class _Measured:
    """A step that tells how much was changed."""

    def told(self, rows: Iterable[Row]) -> dict[str, Any]:
        """How many revisions there are, which share of words they changed in the middle row, and a bar for each tenth
        of that share: rows that changed up to a tenth of their words, up to two tenths..."""
        shares = sorted(row["edit_share"] for row in rows)
        tenths = [0] * 10
        for share in shares:
            tenths[max(0, math.ceil(share * 10) - 1)] += 1
        return {"revised": len(shares), "changed": statistics.median(shares) if shares else None, "tenths": tenths}


class _Measuring(_Measured):
    """Corrections that the data holds."""

    def __init__(self, spec: Revise) -> None:
        self.spec = spec

    def __call__(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        for row in rows:
            both = every(row)
            if row.get("answers") is not None or len(both) != 2:
                raise DataError("no correction stands in the row.", where=identity(row), instead="Choose by=model.")
            if not all(isinstance(answer["text"], str) for answer in both):
                yield Dropped("an answer of several turns")
                continue
            made = self.spec.pair({**row, "prompt": record(row).prompt}, *both)
            yield made if isinstance(made, Dropped) else [made]


class _Revising(_Measured):
    """Revisions by a model."""

    def __init__(self, spec: Revise, answer: Answer) -> None:
        from grainline.curation._revision import template

        self.spec, self.answer, self.told_to = spec, answer, template(spec.template)

    def __call__(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        waiting: deque[tuple[Row, list[dict[str, Any]]]] = deque()

        def questions() -> Iterator[Record]:
            for row in rows:
                initial = self._initial(row)
                waiting.append((row, initial))
                yield from (self._question(row, answer["text"]) for answer in initial)

        heard: list[Answers] = []
        for replies in self.answer(questions()):
            while not waiting[0][1]:
                yield self._row(*waiting.popleft(), [])
            heard.append(replies)
            if len(heard) == len(waiting[0][1]):
                yield self._row(*waiting.popleft(), heard)
                heard = []
        while waiting:
            yield self._row(*waiting.popleft(), [])

    def _initial(self, row: Row) -> list[dict[str, Any]]:
        """The answers that are to be revised."""
        found = every(row)
        if self.spec.of == "worst":
            is_pair = row.get("answers") is None and len(found) == 2
            found = found[-1:] if is_pair else [_worst(row, found)]
        return [answer for answer in found if isinstance(answer["text"], str)]

    def _question(self, row: Row, answer: str) -> Record:
        from grainline.curation._revision import question

        name = identity(row)
        return Record(name, question(self.told_to, record(row).prompt, answer), (), where=name)

    def _row(self, row: Row, initial: Sequence[dict[str, Any]], heard: Sequence[Answers]) -> Sequence[Row]:
        row = {**row, "prompt": record(row).prompt}
        made = [self._pair(row, *one) for one in zip(initial, heard, strict=True)]
        pairs = [pair for pair in made if not isinstance(pair, Dropped)]
        if pairs:
            for pair in pairs:
                pair["curation"][-1]["left_out"] = len(made) - len(pairs)
            return pairs
        return next((why for why in made if isinstance(why, Dropped)), Dropped("an answer of several turns"))

    def _pair(self, row: Row, initial: dict[str, Any], replies: Answers) -> dict[str, Any] | Dropped:
        from grainline.curation._revision import Unreadable, read

        if not replies:
            return Dropped("no reply")
        (reply,) = replies
        if reply["finish"] == "unasked":
            return Dropped("conversation and answer do not fit the model's window")
        if reply["finish"] == "length":
            return Dropped("the reply was cut off")
        try:
            found = read(reply["text"], reason=self.told_to.reason, revision=self.told_to.revision)
        except Unreadable:
            return Dropped("the reply is not in the form asked for")
        revised = {"text": found.text, "model": self.spec.model}
        row = {**row, "revision_reason": found.reason}
        worse = self.told_to.makes == "worse"
        return self.spec.pair(row, revised, initial, worse=worse, version=self.told_to.version)


def _worst(row: Row, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answer with the lowest score; of equals, or where none has one, the first."""
    for answer in found:
        if answer.get("score") is not None and not fields.is_number(answer["score"]):
            raise DataError(f"{fields.show(answer['score'])} is no score.", where=f"{identity(row)} answers")
    scored = [answer for answer in found if answer.get("score") is not None]
    return min(scored, key=lambda answer: answer["score"]) if scored else found[0]
