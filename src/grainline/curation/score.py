"""Score answers, piece by piece and aspect by aspect, by any reward: the matrix of 2D-DPO, or a number an answer.

What the authors of 2D-DPO had GPT-4 do (Li et al. 2024, arXiv:2410.19720, as read in secondary sources: each segment of
both answers is scored on several aspects) is here a matter of the reward: a judge, a trained head, rules. Pieces are
those that the step ``segment`` cut, or that the data came with; a row without them is scored as a whole.

=============================  ====================================================================================
a row of ``answers``           each gets ``score``, ``uncertainty`` where it is known, ``aspect_scores`` beside its
                               ``segments``; the step ``pair`` makes pairs of them
any other row                  ``chosen_score``, ``chosen_uncertainty`` and so on; ``aspect_names``,
                               ``chosen_segments`` and ``chosen_aspect_scores``, which training reads as spans
=============================  ====================================================================================

``score`` is the mean over all pieces and aspects that could be judged. Scores lie between 0 (worst) and 1 (best) by the
reward's own bounds; those of a reward without bounds stand as they are, make no matrix, and can be ordered only.
``between`` gives it bounds (ours). What could not be judged is null; it is counted, never guessed.

``uncertainty`` is the mean over the cells of the reward's own spread, where it knows one (``ensemble``, a judge with
several samples, a head). A score matrix that is there gains columns; an aspect of the same name is replaced.

The provenance says what the scores are worth: how many cells could be judged, and how far they agree with what the data
says itself (:mod:`._agreement`), and the members of an ensemble with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from grainline.curation._agreement import Tally
from grainline.curation._parts import answers
from grainline.curation._seam import Bench, Row, Step, identity, signed
from grainline.data import fields
from grainline.errors import DataError, SpecError
from grainline.rewards._parts import mean, unit
from grainline.rooms import resolve
from grainline.rooms import text as written
from grainline.types import spec

if TYPE_CHECKING:
    from grainline.curation._asking import Said
    from grainline.rewards._seam import Asked, Scores, Scoring

OVERALL = "overall"
"""What the matrix calls the judgement of an answer all in all, which has no name of its own."""


@spec
class Score:
    paper: ClassVar[str] = "arXiv:2410.19720"
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})

    reward: Any = None
    """Who judges, in brackets: (rules:measure=length), (judge:model=NAME), (head:path=FOLDER)...; a list is
    an ensemble."""
    aspects: tuple[str, ...] = ()
    """What is judged: [correctness, safety]; empty = the answer all in all."""
    pieces: Literal["segments", "answer"] = "segments"
    """segments = the pieces that a row has, else its answers as wholes; answer = wholes, and numbers only."""
    between: tuple[float, float] | None = None
    """Worst and best score of a reward that has no bounds of its own; what lies beyond is taken for these. Ours."""

    @field_validator("reward", mode="before")
    @classmethod
    def _resolved(cls, value: Any) -> Any:
        jury = {"name": "ensemble", "of": list(value)} if isinstance(value, (list, tuple)) else value
        return None if jury is None else resolve("rewards", jury)

    @field_validator("aspects")
    @classmethod
    def _named(cls, aspects: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(aspects)) < len(aspects) or not all(aspects):
            raise ValueError("aspects have names, each another")
        return aspects

    @field_validator("between")
    @classmethod
    def _worst_first(cls, between: tuple[float, float] | None) -> tuple[float, float] | None:
        if between is not None and not between[0] < between[1]:
            raise ValueError("the worst score is below the best")
        return between

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        from grainline.curation._asking import desk

        if self.reward is None:
            raise SpecError("no reward.", where="score", instead="Write score:reward=(rules:measure=length).")
        with self.reward.open(desk(bench, self.reward)) as opened:
            yield _Scoring(self, opened)

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns of the matrix are called."""
        return self.aspects or (OVERALL,)


class _Scoring:
    """The step, opened."""

    def __init__(self, spec: Score, reward: Scoring) -> None:
        self.spec, self.reward = spec, reward
        self.own = spec.reward.between  # asked once: it may stand in a file
        self.bounds = self.own or spec.between

    def __call__(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        from grainline.curation._asking import each

        for row, heard in each(rows, self._ask, self.reward):
            yield [self._scored(row, heard)]

    def _ask(self, row: Row) -> list[Asked]:
        from grainline.curation._asking import said
        from grainline.rewards._seam import Asked

        prompt, every = said(row)
        aspects = self.spec.aspects or ("",)
        return [Asked(prompt, answer.text, self._segments(answer), aspects) for answer in every]

    def _segments(self, answer: Said) -> tuple[tuple[int, int], ...]:
        return answer.segments if self.spec.pieces == "segments" else ()

    def _scored(self, row: Row, heard: Sequence[Scores]) -> dict[str, Any]:
        from grainline.curation._asking import said

        _, every = said(row)
        made = dict(row)
        several = answers(row) if row.get("answers") is not None else None
        matrix = self.spec.pieces == "segments" and self.bounds is not None
        old = tuple(fields.parsed(row.get("aspect_names"), where=f"{identity(row)} aspect_names") or ())
        scale = fields.score_range(row, where=identity(row)) or (0.0, 1.0)
        for n, (answer, found) in enumerate(zip(every, heard, strict=True)):
            holder, prefix = (made, f"{answer.side}_") if several is None else (several[n], "")
            columns: dict[str, Any] = self._numbers(found)
            if matrix and answer.plain:
                where = f"{identity(row)} {answer.side or f'answers[{n}]'} aspect_scores"
                before = fields.parsed(holder.get(f"{prefix}aspect_scores"), where=where)
                columns |= self._matrix(found, answer, before, old, scale, where)
            holder.update({prefix + name: value for name, value in columns.items()})
        made |= {"aspect_names": list(dict.fromkeys([*old, *self.spec.names]))} if matrix else {}
        made |= {"answers": several} if several is not None else {}
        return signed(made, written(self.spec), **self._facts(heard))

    def _matrix(
        self, found: Scores, answer: Said, before: Any, old: Sequence[str], scale: tuple[float, float], where: str
    ) -> dict[str, Any]:
        """The columns of a score matrix: what stood there (``before``, of the aspects ``old``), and what was found."""
        pieces = answer.segments or ((0, len(answer.text)),)
        before = before or [[None] * len(old)] * len(pieces)
        if len(before) != len(pieces) or any(len(row) != len(old) for row in before):
            raise DataError("the scores that are there are of other pieces.", where=where)
        low, high = scale
        new = [[_null(low + (high - low) * self._scaled(cell)) for cell in row] for row in found.value]
        cells = [
            dict(zip(old, was, strict=True)) | dict(zip(self.spec.names, now, strict=True))
            for was, now in zip(before, new, strict=True)
        ]
        return {"segments": [list(one) for one in pieces], "aspect_scores": [list(row.values()) for row in cells]}

    def _scaled(self, value: float) -> float:
        """A score of the reward, from 0 to 1 if it has bounds; NaN stays."""
        if self.bounds is None or math.isnan(value):
            return value
        worst, best = self.bounds
        return unit(value if self.own else min(max(value, worst), best), self.bounds)

    def _numbers(self, found: Scores) -> dict[str, float | None]:
        """What is said of the answer as a whole."""
        score = mean([self._scaled(cell) for row in found.value for cell in row])
        worst, best = self.bounds or (0.0, 1.0)
        spread = mean([cell / (best - worst) for row in found.spread or () for cell in row])
        return {"score": _null(score)} | ({} if math.isnan(spread) else {"uncertainty": spread})

    def _facts(self, heard: Sequence[Scores]) -> dict[str, Any]:
        cells = [cell for found in heard for row in found.value for cell in row]
        facts: dict[str, Any] = {"cells": len(cells), "scored": sum(not math.isnan(cell) for cell in cells)}
        if any(found.opinions for found in heard):
            wholes = [[mean([cell for row in one for cell in row]) for one in found.opinions or ()] for found in heard]
            facts["members"] = [[_null(whole) for whole in one] for one in wholes]
        return facts

    def told(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Of all rows that were made: how many cells could be scored, and how far the scores agree with what the data
        says itself (0.5 is chance) and the members with each other."""
        tally = Tally(self.spec.names)
        for row in rows:
            tally.add(row)
        return tally.facts()


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value
