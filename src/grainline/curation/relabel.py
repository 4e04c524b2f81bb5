r"""Reward-augmented data: say in the prompt how good the answer shall be, and learn from each pair in both directions.

Zhang et al. 2024, arXiv:2410.08067. A pair with scores becomes two,

.. math:: \{(x \mid g = s_w,\; y_w \succ y_l)\} \;\cup\; \{(x \mid g = s_l,\; y_l \succ y_w)\},

for to somebody who asked for quality :math:`s_l` the worse answer is the better match: it wins by
:math:`R(x, y, g) = -(g - s(y))^2` (that formula is inferred from the paper's description). So good rejected answers are
not unlearned, and poor chosen ones are not overdone. Any loss of pairs may follow (DPO with beta 0.01 as released). The
reference reads the goal as well. At inference one asks for the best: :func:`grainline.data.conditions.conditioned`
renders the very same text.

In the release, the variant without a system turn writes the low goal before the question but leaves the good answer
chosen, in three of its four recipes; here both variants swap. Its pairs are kept where a second rating agrees with the
preference; here where the scores themselves do. Pairs whose goals read alike are dropped (ours): they would contradict
each other under one prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field

from grainline.curation._parts import Ends, record
from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.data import fields
from grainline.data.conditions import Condition, Place, conditioned
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import Answer, spec


@spec
class Relabel:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2410.08067"

    score: str = "score"
    """Columns that hold the scores are called chosen_ and rejected_ and this; the step score writes "score"."""
    between: Ends = (0.0, 1.0)
    """Worst and best score that the columns can hold; [1, 10] takes them for goals as they are."""
    scale: Ends = (1.0, 10.0)
    """Worst and best goal, in the prompt; 1 to 10 as released."""
    digits: int = Field(1, ge=0, le=4)
    """Decimal places of a goal."""
    place: Place = "system"
    """Of chat prompts: system = in the system's turn; user = before the question, for models that know no system."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield self._each

    def _each(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        for row in rows:
            yield self._row(row)

    def _row(self, row: Row) -> Sequence[Row]:
        read = record(row)
        if not read.is_pair or row.get("answers") is not None:
            raise DataError("goals come from a pair.", where=identity(row), instead="Put the step pair before.")
        scores = [self._score(row, f"{side}_{self.score}") for side in ("chosen", "rejected")]
        if None in scores:
            return Dropped("an answer has no score")
        better, worse = (self.goal(score, where=identity(row)) for score in scores if score is not None)
        if better <= worse:
            return Dropped("both goals are the same" if better == worse else "the rejected answer has the higher score")
        pair = {**row, **dict(zip(("chosen", "rejected"), map(_written, read.answers), strict=True))}
        pair.pop("margin", None)  # between the scores; which of the goals is missed by more is another matter
        return [self._under(goal, one, read.prompt) for goal, one in ((better, pair), (worse, _swapped(pair)))]

    def goal(self, score: float, *, where: str = "") -> float:
        """The goal that asks for an answer of this score."""
        (low, high), (worst, best) = self.between, self.scale
        if not low <= score <= high:
            raise DataError(
                f"the score {score:g} is not between {low:g} and {high:g}.",
                where=where,
                instead="Say what scores lie between: relabel:between=[1, 10].",
            )
        return round(worst + (best - worst) * (score - low) / (high - low), self.digits)

    def _score(self, row: Row, column: str) -> float | None:
        where = f"{identity(row)} {column}"
        if column not in row:
            raise DataError("there is no such column.", where=where, instead="Put the step score before, or name it.")
        if row[column] is not None and not fields.is_number(row[column]):
            raise DataError(f"{fields.show(row[column])} is no score.", where=where)
        return row[column]

    def _under(self, goal: float, row: Row, prompt: Any) -> dict[str, Any]:
        condition = Condition({"overall": goal}, "goal", self.place, self.scale)
        made = {**row, "prompt": conditioned(prompt, condition), "condition": condition.said()}
        return signed(made, written(self), goal=goal)


def _written(answer: Answer) -> Any:
    return list(answer.messages) if answer.messages else answer.text


def _swapped(row: Row) -> dict[str, Any]:
    """The pair the other way round, with all columns that tell of one of its answers."""
    other = {"chosen": "rejected", "rejected": "chosen"}
    found = {}
    for column, value in row.items():
        side, line, rest = column.partition("_")
        found[f"{other.get(side, side)}{line}{rest}"] = value
    return found
