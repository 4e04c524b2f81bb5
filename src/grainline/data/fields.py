"""Single values of a row: text, numbers, flags, spans; each is read or refused with the field's name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from grainline.errors import DataError
from grainline.types import Answer, Span


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """A list or tuple: conversations, steps, spans."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def show(value: object) -> str:
    """A value as an error message shows it: what it is, and how it begins."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null" if value is None else "NaN"
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"


def text(value: object, *, where: str) -> str:
    """``value`` as text that says something, or a DataError."""
    if not isinstance(value, str):
        raise DataError(f"{show(value)} is not text.", where=where)
    if not value.strip():
        raise DataError("the text is empty.", where=where, instead="Remove the row or write the text.")
    return value


def flag(value: Any, *, where: str) -> bool:
    if not isinstance(value, bool):
        raise DataError(f"{show(value)} is not a label.", where=where, instead="Write true or false.")
    return value


def number(row: Mapping[str, Any], column: str, *, where: str, positive: bool = False) -> float | None:
    if column not in row:
        return None
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"{show(value)} is not a finite number.", where=f"{where} {column}")
    if positive and value <= 0:
        raise DataError(
            f"{value!r} is not above zero.", where=f"{where} {column}", instead="Remove rows that shall not count."
        )
    return float(value)


def parsed(value: Any, *, where: str) -> Any:
    """Arrow has no column of free-form objects, so files often hold them as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise DataError(f"broken JSON: {error}.", where=where) from error


def with_spans(answer: Answer, row: Mapping[str, Any], column: str, *, where: str) -> Answer:
    spans = parsed(row.get(column), where=f"{where} {column}")
    if not spans:
        return answer
    if not is_list(spans):
        raise DataError(f"{show(spans)} is not a list of spans.", where=f"{where} {column}")
    if answer.messages:
        raise DataError("spans need an answer that is one plain text.", where=f"{where} {column}")
    return answer._replace(
        spans=tuple(_span(s, len(answer.text), where=f"{where} {column}[{n}]") for n, s in enumerate(spans))
    )


def _span(span: Any, length: int, *, where: str) -> Span:
    if not isinstance(span, Mapping) or not {"start", "end"} <= set(span):
        raise DataError(f"{show(span)} is not a span.", where=where, instead="It needs start and end.")
    start, stop = span["start"], span["end"]
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (start, stop)):
        raise DataError("start and end must be whole numbers of characters.", where=where)
    if not 0 <= start < stop:
        raise DataError(f"start {start} and end {stop} enclose no text.", where=where)
    if stop > length:
        raise DataError(f"end {stop} is outside the answer, which has {length} characters.", where=where)
    score = number({key: value for key, value in span.items() if value is not None}, "score", where=where)
    return Span(start, stop, str(span.get("aspect") or span.get("type") or ""), 0.0 if score is None else score)
