"""Leave out rows by margin, agreement, lengths, words or any number they hold; every reason is counted.

A row stays when it meets all that is asked; it is dropped for the first thing that it does not meet, in the order of
the options below. Nothing of a row is changed. What is asked about but not there (a margin in a row without one) is an
error that names the row, not a reason to drop it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from grainline.curation._parts import record
from grainline.curation._seam import Bench, Dropped, Row, Step, identity
from grainline.data import chat, fields
from grainline.errors import DataError
from grainline.types import Record, spec


@spec
class Filter:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    margin: float | None = None
    """Least ``margin`` of a pair: how much better chosen is, on the data's own scale. null = any."""
    agreement: float | None = Field(None, ge=0, le=1)
    """Least share of the aspects judged on both sides in which chosen is better; a tie counts one half. null = any."""
    balance: float | None = Field(None, ge=1)
    """Most times that one answer of a row may be as long as another, in ``unit``. null = any."""
    shortest: int = Field(0, ge=0)
    """Least length of every answer, in ``unit``."""
    longest: int | None = Field(None, ge=1)
    """Greatest length of every answer, in ``unit``. null = any."""
    longest_prompt: int | None = Field(None, ge=1)
    """Greatest length of the prompt, all turns together, in ``unit``. null = any."""
    unit: Literal["characters", "words"] = "characters"
    """What lengths are counted in."""
    without: str = ""
    """Regular expression (Python's) that must be found nowhere in ``within``."""
    having: str = ""
    """Regular expression (Python's) that must be found somewhere in ``within``."""
    within: Literal["answers", "prompt", "both"] = "answers"
    """Where ``without`` and ``having`` look."""
    least: dict[str, float] = Field(default_factory=dict)
    """Column -> its least number: ``least.score=0.5``; a dotted name reaches into an object."""
    most: dict[str, float] = Field(default_factory=dict)
    """Column -> its greatest number: ``most.chosen_uncertainty=0.2``."""

    @field_validator("without", "having")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"no regular expression ({error})") from None
        return pattern

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield self._each

    def _each(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        for row in rows:
            why = self.against(row)
            yield Dropped(why) if why else [row]

    def against(self, row: Row) -> str:
        """Why a row is left out; empty where it stays."""
        read = record(row)
        checks = (self._margin, self._agreement, self._lengths, self._words, self._numbers)
        return next((why for check in checks if (why := check(row, read))), "")

    def _margin(self, row: Row, read: Record) -> str:
        if self.margin is None:
            return ""
        return f"margin below {self.margin:g}" if _number(row, "margin") < self.margin else ""

    def _agreement(self, row: Row, read: Record) -> str:
        if self.agreement is None:
            return ""
        return f"agreement below {self.agreement:g}" if agreement(read) < self.agreement else ""

    def _lengths(self, row: Row, read: Record) -> str:
        answers = [self._length(answer.text) for answer in read.answers]
        if min(answers) < self.shortest:
            return f"an answer of fewer than {self.shortest} {self.unit}"
        if self.longest is not None and max(answers) > self.longest:
            return f"an answer of more than {self.longest} {self.unit}"
        if self.balance is not None and max(answers) > self.balance * min(answers):
            return f"one answer more than {self.balance:g} times as long as another"
        if self.longest_prompt is not None and self._length(chat.spoken(read.prompt)) > self.longest_prompt:
            return f"a prompt of more than {self.longest_prompt} {self.unit}"
        return ""

    def _length(self, text: str) -> int:
        return len(text) if self.unit == "characters" else len(text.split())

    def _words(self, row: Row, read: Record) -> str:
        if not self.without and not self.having:
            return ""
        texts = [chat.spoken(read.prompt)] if self.within != "answers" else []
        texts += [answer.text for answer in read.answers] if self.within != "prompt" else []
        if self.without and any(re.search(self.without, text) for text in texts):
            return f"has /{self.without}/"
        if self.having and not any(re.search(self.having, text) for text in texts):
            return f"lacks /{self.having}/"
        return ""

    def _numbers(self, row: Row, read: Record) -> str:
        for column, bound in self.least.items():
            if _number(row, column) < bound:
                return f"{column} below {bound:g}"
        for column, bound in self.most.items():
            if _number(row, column) > bound:
                return f"{column} above {bound:g}"
        return ""


def agreement(read: Record) -> float:
    """Of the aspects that both answers of a pair are judged in, the share in which chosen is better.

    Raises:
        DataError: not a pair, or no aspect is judged on both sides.
    """
    means: list[dict[str, float]] = []
    for answer in read.answers:
        judged: dict[str, list[float]] = {}
        for span in answer.spans:
            judged.setdefault(span.aspect, []).append(span.score)
        means.append({aspect: sum(scores) / len(scores) for aspect, scores in judged.items()})
    both = means[0].keys() & means[1].keys() if len(means) == 2 else set()
    if not both:
        raise DataError("no aspect is judged on both sides.", where=read.where, instead="Ask for no agreement.")
    chosen, rejected = means
    return sum((chosen[a] > rejected[a]) + (chosen[a] == rejected[a]) / 2 for a in both) / len(both)


def _number(row: Row, column: str) -> float:
    value: Any = row
    for key in [column] if column in row else column.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not fields.is_number(value):
        raise DataError(f"{fields.show(value)} is not a finite number.", where=f"{identity(row)} {column}")
    return float(value)
