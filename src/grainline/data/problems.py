"""What is wrong with rows, by kind and in bounded memory: every problem is counted, the first of each kind are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from grainline.errors import DataError

Severity = Literal["error", "warning"]

KEPT = 10_000
"""Problems of one kind that are kept with their rows; of further ones only the number."""
KINDS = 60
"""Kinds that are told apart; further ones are one kind together."""
LEFT_OUT = "…"
"""Stands in a kind for names and numbers in which its problems may differ."""


class Problem(NamedTuple):
    """One thing that is wrong with one row."""

    kind: str  # what all problems of this kind have in common, as a sentence without its full stop
    severity: Severity  # an error makes the row unusable; with a warning it is trained on as it is
    where: str  # "file:row", and the field where there is one
    what: str
    instead: str  # what to do
    beside: str = ""  # the other row, where there is one


class Group(NamedTuple):
    """All problems of one kind."""

    kind: str
    severity: Severity
    number: int
    instead: str  # what to do with the first of them
    problems: tuple[Problem, ...]  # the first KEPT


class Collector:
    """Takes problems one by one and gives them back by kind."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._count: dict[tuple[Severity, str], int] = {}
        self._first: dict[tuple[Severity, str], list[Problem]] = {}

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            key = (problem.severity, problem.kind)
            if key not in self._count and len(self._count) >= KINDS:
                key = (problem.severity, "another reason")
            self._count[key] = self._count.get(key, 0) + 1
            first = self._first.setdefault(key, [])
            if len(first) < self._kept:
                first.append(problem)

    def groups(self) -> tuple[Group, ...]:
        """Errors before warnings, the commonest first."""
        keys = sorted(self._count, key=lambda key: (key[0] != "error", -self._count[key], key[1]))
        return tuple(
            Group(kind, severity, self._count[severity, kind], first[0].instead, tuple(first))
            for severity, kind in keys
            if (first := self._first[severity, kind])
        )


def unusable(error: DataError) -> Problem:
    """Why a row cannot be used, of the kind that its message says once names and numbers are left out."""
    return Problem(_common(error.what), "error", error.where, error.what, error.instead)


def _common(what: str) -> str:
    """
    >>> _common("end 99 is outside the answer, which has 14 characters.")
    'end … is outside the answer, which has … characters'
    >>> _common("['a', 'b'] (list) is not text.")
    'a value of type list is not text'
    """
    what = re.sub(r"^.* \((\w+)\) is not ", r"a value of type \1 is not ", what, flags=re.DOTALL)
    what = re.sub(r"""'[^']*'|"[^"]*"|-?\d+(\.\d+)?""", LEFT_OUT, what)
    return what[:120].rstrip(".")
