"""What formats share: row by row with its place, values read or refused by their native names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from grainline.data import fields, files
from grainline.errors import DataError


class Skipped(NamedTuple):
    """Stands for a native row that makes no row of ours by its nature, not by a fault: a tie, say. It is counted."""

    why: str  # in the plural, as the count is said: "ties"


def each(
    rows: Iterable[files.Row], convert: Callable[[Mapping[str, Any], str], Mapping[str, Any] | Skipped]
) -> Iterator[files.Row]:
    """``convert(row, where)`` of every row; what it raises stands in the row's place."""
    for where, id, row in rows:
        try:
            yield files.Row(where, id, convert(mapping(row, where=where), where))
        except DataError as problem:
            yield files.Row(where, id, problem)


def mapping(row: Any, *, where: str) -> Mapping[str, Any]:
    """A row, or a part of one, that has names. A row that could not be parsed raises what it was told to."""
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, Mapping):
        raise DataError(f"{fields.show(row)} is not an object.", where=where)
    return row


def listed(row: Mapping[str, Any], column: str, *, where: str) -> Sequence[Any]:
    value = row.get(column)
    if not fields.is_list(value):
        raise DataError(f"{fields.show(value)} is not a list.", where=f"{where} {column}")
    return value


def text(row: Mapping[str, Any], column: str, *, where: str) -> str:
    return fields.text(row.get(column), where=f"{where} {column}")


def score(row: Mapping[str, Any], column: str, *, scale: Sequence[int], where: str) -> float:
    """A number on the data set's scale (lowest, highest)."""
    value = fields.number({column: row.get(column)}, column, where=where)
    assert value is not None
    low, high = scale
    if not low <= value <= high:
        raise DataError(f"{value:g} is not on the scale from {low} to {high}.", where=f"{where} {column}")
    return value


def asked(question: str) -> list[dict[str, str]]:
    """A prompt of one user turn."""
    return [{"role": "user", "content": question}]


def whole(answer: str, scores: Mapping[str, float]) -> list[dict[str, Any]]:
    """Spans over the whole answer, one for each aspect."""
    return [{"start": 0, "end": len(answer), "aspect": aspect, "score": score} for aspect, score in scores.items()]
