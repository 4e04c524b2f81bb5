"""Single values of a row: text, numbers, flags, spans; each is read or refused with the field's name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from grainline.errors import DataError
from grainline.types import Answer, Span

TURNS = 'Write the text itself, or a list of turns: [{"role": "assistant", "content": ...}].'


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
        turn = isinstance(value, Mapping)  # as some tools write a preferred answer: one turn, without a list
        raise DataError(f"{show(value)} is not text.", where=where, instead=TURNS if turn else "")
    if not value.strip():
        raise DataError("the text is empty.", where=where, instead="Remove the row or write the text.")
    return whole(value, where=where)


def whole(value: str, *, where: str) -> str:
    """``value`` if it is text that can be written down: JSON may spell half a character, which no tokenizer reads."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"{value[error.start]!r} at character {error.start} is half a character."
        raise DataError(half, where=where, instead="Write the whole one, or remove it.") from None
    return value


def flag(value: Any, *, where: str) -> bool:
    if not isinstance(value, bool):
        raise DataError(f"{show(value)} is not a label.", where=where, instead="Write true or false.")
    return value


def is_number(value: object) -> TypeGuard[float]:
    """A finite number that is no flag."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(row: Mapping[str, Any], column: str, *, where: str, positive: bool = False) -> float | None:
    if column not in row:
        return None
    value = row[column]
    if not is_number(value):
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


FINE = ("spans", "segments", "aspect_scores")
"""Columns that judge parts of an answer, after the answer's name: ``chosen_spans`` and so on."""

EDIT = "edit"
"""Aspect of a span that marks what a revision changed (the step edits writes it, the supervision edits reads it)."""


def with_spans(answer: Answer, row: Mapping[str, Any], name: str, *, where: str) -> Answer:
    """``answer``, called ``name`` in its row, with all that the row says of its parts."""
    columns = {kind: parsed(row.get(f"{name}_{kind}"), where=f"{where} {name}_{kind}") for kind in FINE}
    given = {kind: value for kind, value in columns.items() if value}
    if not given:
        return answer
    for kind, value in given.items():
        if not is_list(value):
            raise DataError(f"{show(value)} is not a list.", where=f"{where} {name}_{kind}")
    if answer.messages:
        raise DataError("spans need an answer that is one plain text.", where=f"{where} {name}_{min(given)}")
    length, scale = len(answer.text), score_range(row, where=where)
    found = [
        _span(s, length, where=f"{where} {name}_spans[{n}]", scale=scale) for n, s in enumerate(given.get("spans", ()))
    ]
    return answer._replace(spans=(*found, *_matrix(answer.text, row, given, name, where=where, scale=scale)))


def _matrix(
    text: str, row: Mapping[str, Any], given: Mapping[str, Any], name: str, *, where: str, scale: _Scale
) -> list[Span]:
    """Spans of a score matrix, segments x aspects."""
    segments, scores = given.get("segments", ()), given.get("aspect_scores", ())
    if not scores:  # pieces that nobody has judged
        pieces(text, segments, where=f"{where} {name}_segments")
        return []
    if len(segments) != len(scores):
        raise DataError(
            f"{len(segments)} segments but {len(scores)} rows of scores.", where=f"{where} {name}_aspect_scores"
        )
    names = parsed(row.get("aspect_names"), where=f"{where} aspect_names") if segments else []
    if not is_list(names) or not all(isinstance(aspect, str) and aspect for aspect in names):
        raise DataError(
            f"{show(names)} is not a list of names.", where=f"{where} aspect_names", instead='Write ["safety", ...].'
        )
    spans = []
    for n, (start, stop) in enumerate(pieces(text, segments, where=f"{where} {name}_segments")):
        here = f"{where} {name}_aspect_scores[{n}]"
        if not is_list(scores[n]) or len(scores[n]) != len(names):
            raise DataError(f"{show(scores[n])} is not a score for each of {len(names)} aspects.", where=here)
        for aspect, score in zip(names, scores[n], strict=True):
            if score is not None:
                spans.append(Span(start, stop, aspect, _score(score, scale, where=f"{here} {aspect}")))
    return spans


def pieces(text: str, segments: Sequence[Any], *, where: str) -> list[tuple[int, int]]:
    """Where the segments stand; given as texts they follow one another, white space between them aside."""
    if not all(isinstance(segment, str) for segment in segments):
        return [_place(segment, len(text), where=f"{where}[{n}]") for n, segment in enumerate(segments)]
    found, at = [], 0
    for n, segment in enumerate(segments):
        start = text.find(segment.strip(), at)
        if not segment.strip() or start < 0 or text[at:start].strip():
            raise DataError(f"{show(segment)} is not what follows in the answer.", where=f"{where}[{n}]")
        at = start + len(segment.strip())
        found.append((start, at))
    return found


_Scale = tuple[float, float] | None


def score_range(row: Mapping[str, Any], *, where: str) -> _Scale:
    given, here = parsed(row.get("score_range"), where=f"{where} score_range"), f"{where} score_range"
    if given is None:
        return None
    if not is_list(given) or len(given) != 2:
        raise DataError(f"{show(given)} is not [worst, best].", where=here)
    worst, best = (number({"n": n}, "n", where=here) for n in given)
    if worst is None or best is None or not worst < best:
        raise DataError(f"{show(given)} is not [worst, best].", where=here)
    return worst, best


def _score(value: Any, scale: _Scale, *, where: str) -> float:
    score = number({"score": value}, "score", where=where) or 0.0
    if scale is None:
        return score
    worst, best = scale
    if not worst <= score <= best:
        raise DataError(f"{score:g} is outside score_range [{worst:g}, {best:g}].", where=f"{where} score")
    return (score - worst) / (best - worst)


def _span(span: Any, length: int, *, where: str, scale: _Scale) -> Span:
    if not isinstance(span, Mapping) or not {"start", "end"} <= set(span):
        raise DataError(f"{show(span)} is not a span.", where=where, instead="It needs start and end.")
    start, stop = _place((span["start"], span["end"]), length, where=where)
    score = 0.0 if span.get("score") is None else _score(span["score"], scale, where=where)
    return Span(start, stop, str(span.get("aspect") or span.get("type") or ""), score)


def _place(ends: Any, length: int, *, where: str) -> tuple[int, int]:
    if not is_list(ends) or len(ends) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) for n in ends):
        raise DataError("start and end must be whole numbers of characters.", where=where)
    start, stop = ends
    if not 0 <= start < stop:
        raise DataError(f"start {start} and end {stop} enclose no text.", where=where)
    if stop > length:
        raise DataError(f"end {stop} is outside the answer, which has {length} characters.", where=where)
    return start, stop
