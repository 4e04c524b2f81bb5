"""Pairs from several scored answers to one prompt: what is better stands against what is worse.

``best`` the highest against the lowest score (the usual way with answers of one's own model, e.g. SimPO's, Meng et al.
2024, arXiv:2405.14734); ``random`` the highest against one of the others, drawn (Zephyr's, Tunstall et al. 2023,
arXiv:2310.16944: with the lowest each time, a loss soon finds the difference too easy); ``all`` every pair of answers.
A pair is made where the scores differ by more than ``margin``.

The row becomes one row a pair: ``prompt``, ``chosen``, ``rejected``, ``margin`` (how much the scores differ), and what
is known of the answers: ``chosen_score``, ``chosen_model``, ``chosen_segments``... Its column ``answers`` goes. A row
of which no pair can be made is dropped, and counted under its reason. Answers without a score, and a text that
stands there already, take no part.

With ``ties=first`` an answer that is not worse than one behind it stays the better one. With the data's own answer
first (``generate:own=true``) this is DNPO's dynamic labelling (arXiv:2502.05400, as read in secondary sources): the
model's answer wins only where it is judged better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any, ClassVar, Literal

from pydantic import Field

from grainline.curation._parts import answers
from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.data import fields
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import spec

Answer = Mapping[str, Any]


@spec
class Pair:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"answers"})

    of: Literal["best", "random", "all"] = "best"
    """best = highest against lowest score; random = highest against one of the others; all = each two."""
    margin: float = Field(0.0, ge=0)
    """Scores must differ by more than this, in their own unit."""
    ties: Literal["drop", "first"] = "drop"
    """Two answers with one score: drop = no pair; first = the one that stands first is chosen (with margin=0)."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        def each(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
            for row in rows:
                yield self._pairs(row, bench)

        yield each

    def _pairs(self, row: Row, bench: Bench) -> Sequence[Row]:
        known = _scored(row)
        if len(known) < 2:
            return Dropped("fewer than two answers with a score")
        ranked = sorted(known, key=lambda answer: -answer["score"])  # stable: the first of equals stays first
        apart = [both for both in combinations(ranked, 2) if self._apart(*both)]
        if self.of != "all":
            with_best = [both for both in apart if both[0] is ranked[0]]
            apart = with_best[-1:] if self.of == "best" or not with_best else [bench.luck(row).choice(with_best)]
        why = "no two answers differ by more than the margin" if self.margin else "all scores are equal"
        return [self._pair(row, *both) for both in apart] or Dropped(why)

    def _apart(self, better: Answer, worse: Answer) -> bool:
        difference = better["score"] - worse["score"]
        return difference > self.margin or (difference == self.margin == 0 and self.ties == "first")

    def _pair(self, row: Row, better: Answer, worse: Answer) -> dict[str, Any]:
        made = {key: value for key, value in row.items() if key != "answers" and not _of_answers(key)}
        for side, answer in (("chosen", better), ("rejected", worse)):
            made[side] = answer["text"]
            made |= {f"{side}_{key}": value for key, value in answer.items() if key != "text"}
        made["margin"] = better["score"] - worse["score"]
        return signed(made, written(self))


def _scored(row: Row) -> list[dict[str, Any]]:
    """Distinct answers with a score, in order."""
    found: dict[str, dict[str, Any]] = {}
    for n, answer in enumerate(answers(row)):
        score = answer.get("score")
        if score is not None and not fields.is_number(score):
            raise DataError(f"{fields.show(score)} is no score.", where=f"{identity(row)} answers[{n}].score")
        if score is not None:
            found.setdefault(answer["text"], answer)
    return list(found.values())


def _of_answers(column: str) -> bool:
    """Whether a column tells of answers that the row had before."""
    kinds = ("chosen", "rejected", "completion", "completions", "messages")
    return column in (*kinds, "label", "labels", "margin") or column.startswith(tuple(f"{kind}_" for kind in kinds))
