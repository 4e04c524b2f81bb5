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

Several rewards are a jury: their mean is the score and their standard deviation (over n - 1) the uncertainty, cell by
cell. The uncertainty of an answer is the mean over its cells. A score matrix that is there gains columns; an aspect of
the same name is replaced.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from grainline.curation import _parts as parts
from grainline.curation._agreement import Tally
from grainline.curation._jury import Bounds, Judged, judged, null, numbers
from grainline.curation._seam import Bench, Row, Step, identity, signed
from grainline.data import fields
from grainline.errors import DataError, SpecError
from grainline.rooms import text as written
from grainline.types import spec

if TYPE_CHECKING:
    from grainline.curation._asking import Said
    from grainline.rewards._seam import Asked, Scoring

OVERALL = "overall"
"""What the matrix calls the judgement of an answer all in all, which has no name of its own."""


@spec
class Score:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})

    reward: Any = "rules"
    """Who judges: (rules:measure=length), (judge:model=NAME)...; a list is a jury."""
    aspects: tuple[str, ...] = ()
    """What is judged: [correctness, safety]; empty = the answer all in all."""
    pieces: Literal["segments", "answer"] = "segments"
    """segments = the pieces that a row has, else its answers as wholes; answer = wholes, and numbers only."""
    between: tuple[float, float] | None = None
    """Worst and best score of a reward that has no bounds of its own; what lies beyond is taken for these."""

    @field_validator("reward")
    @classmethod
    def _rewards(cls, value: Any) -> Any:
        from grainline.curation._asking import rewards

        found = rewards(value)
        if not found:
            raise ValueError("a jury has a member")
        return found if len(found) > 1 else found[0]

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

    @property
    def jury(self) -> tuple[Any, ...]:
        return self.reward if isinstance(self.reward, tuple) else (self.reward,)

    def bounds(self, reward: Any) -> Bounds | None:
        """Between which numbers the scores of this member lie."""
        if reward.between is not None:
            return Bounds(*reward.between)
        return Bounds(*self.between, assumed=True) if self.between is not None else None

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        from grainline.curation._asking import desk

        bounds = [self.bounds(reward) for reward in self.jury]
        if len(bounds) > 1 and None in bounds:
            who = written(self.jury[bounds.index(None)])
            raise SpecError(f"{who} has no bounds.", where=written(self), instead="Set between=[worst, best].")
        with ExitStack() as stack:
            members = [stack.enter_context(reward.open(desk(bench, reward))) for reward in self.jury]
            yield _Scoring(self, members, bounds)

    @property
    def reads(self) -> tuple[str, ...]:
        """What the jury reads from the disk: with other bytes there it is another job."""
        return tuple(path for reward in self.jury for path in getattr(reward, "reads", ()))

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns of the matrix are called."""
        return self.aspects or (OVERALL,)


class _Scoring:
    """The step, opened."""

    def __init__(self, spec: Score, members: Sequence[Scoring], bounds: Sequence[Bounds | None]) -> None:
        self.spec, self.members, self.bounds = spec, members, bounds

    def __call__(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        from grainline.curation._asking import each

        for row, heard in each(rows, self._ask, self.members):
            yield [self._scored(row, [judged(scores, self.bounds) for scores in heard])]

    def _ask(self, row: Row) -> list[Asked]:
        from grainline.curation._asking import said
        from grainline.rewards._seam import Asked

        prompt, answers = said(row)
        aspects = self.spec.aspects or ("",)
        return [Asked(prompt, answer.text, self._segments(answer), aspects) for answer in answers]

    def _segments(self, answer: Said) -> tuple[tuple[int, int], ...]:
        return answer.segments if self.spec.pieces == "segments" else ()

    def _scored(self, row: Row, verdicts: Sequence[Judged]) -> dict[str, Any]:
        from grainline.curation._asking import said

        _, answers = said(row)
        made = dict(row)
        several = [dict(answer) for answer in parts.answers(row)] if row.get("answers") is not None else None
        matrix = self.spec.pieces == "segments" and None not in self.bounds
        old = tuple(fields.parsed(row.get("aspect_names"), where=f"{identity(row)} aspect_names") or ())
        names = (*old, *(name for name in self.spec.names if name not in old))
        for n, (answer, found) in enumerate(zip(answers, verdicts, strict=True)):
            columns = numbers(found)
            holder, prefix = (made, f"{answer.side}_") if several is None else (several[n], "")
            if matrix and answer.plain:
                where = f"{identity(row)} {answer.side or f'answers[{n}]'}"
                columns |= self._matrix(found, answer, holder, prefix, old, names, where)
            holder.update({prefix + name: value for name, value in columns.items()})
        made |= {"aspect_names": list(names)} if matrix else {}
        made |= {"answers": several} if several is not None else {}
        return signed(made, written(self.spec), **self._facts(verdicts))

    def _matrix(
        self,
        found: Judged,
        answer: Said,
        holder: Row,
        prefix: str,
        old: Sequence[str],
        names: Sequence[str],
        where: str,
    ) -> dict[str, Any]:
        """The columns of a score matrix: what stands there, and what was found now."""
        pieces = answer.segments or ((0, len(answer.text)),)
        column = f"{prefix}aspect_scores"
        before = fields.parsed(holder.get(column), where=f"{where} {column}") or [[None] * len(old)] * len(pieces)
        if len(before) != len(pieces) or any(len(row) != len(old) for row in before):
            raise DataError("the scores that are there are of other pieces.", where=f"{where} {column}")
        low, high = fields.score_range(holder, where=where) or (0.0, 1.0)
        new = [[null(low + (high - low) * cell) for cell in row] for row in found.value]
        cells = [
            dict(zip(old, was, strict=True)) | dict(zip(self.spec.names, now, strict=True))
            for was, now in zip(before, new, strict=True)
        ]
        return {
            "segments": [list(piece) for piece in pieces],
            "aspect_scores": [[row.get(name) for name in names] for row in cells],
        }

    def _facts(self, verdicts: Sequence[Judged]) -> dict[str, Any]:
        cells = [cell for one in verdicts for row in one.value for cell in row]
        facts: dict[str, Any] = {"cells": len(cells), "scored": sum(not math.isnan(cell) for cell in cells)}
        if len(self.members) > 1:
            facts["members"] = [[null(value) for value in one.members] for one in verdicts]
        return facts

    def told(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Of all rows that were made: how many cells could be scored, and how far the scores agree with what the data
        says itself (0.5 is chance) and the members with each other."""
        tally = Tally(self.spec.names)
        for row in rows:
            tally.add(row)
        return tally.facts()
