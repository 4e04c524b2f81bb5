"""What steps share: what a row is called, and how its answers are read, whichever columns hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from grainline.data import chat, columns, fields
from grainline.data.row_checks import sides
from grainline.errors import DataError
from grainline.types import Answer, Record


def identity(row: Mapping[str, Any]) -> str:
    """The row's ``id``; without one, its content."""
    return str(row["id"]) if row.get("id") is not None else json.dumps(row, sort_keys=True, ensure_ascii=True)


def record(row: Mapping[str, Any]) -> Record:
    """The row as training would read it; a row of several answers as a record with all of them.

    Raises:
        DataError: a row without chosen and rejected, completion, completions, messages or answers; or one is unusable.
    """
    name = identity(row)
    if row.get("answers") is None:
        return columns.record(row, where=name, id=name)
    asked = row.get("prompt")
    where = f"{name} prompt"
    prompt = chat.prompt(asked, where=where) if fields.is_list(asked) else fields.text(asked, where=where)
    return Record(name, prompt, tuple(Answer(one["text"]) for one in answers(row)), where=name)


def answers(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The row's column ``answers``, each an object with ``text`` and what else is known of it."""
    given = row.get("answers")
    if not fields.is_list(given) or not given:
        raise DataError(f"{fields.show(given)} is no list of answers.", where=f"{identity(row)} answers")
    return [_answer(answer, where=f"{identity(row)} answers[{n}]") for n, answer in enumerate(given)]


def _answer(answer: Any, *, where: str) -> dict[str, Any]:
    if isinstance(answer, str):
        answer = {"text": answer}
    if not isinstance(answer, Mapping):
        raise DataError(f"{fields.show(answer)} is no answer.", where=where, instead='Write a text, or {"text": ...}.')
    fields.text(answer.get("text"), where=f"{where}.text")
    return dict(answer)


def every(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each answer of the row with what is known of it: of the column ``answers``, else its own (chosen before
    rejected), whose ``chosen_score`` is the answer's ``score`` and so on. Several turns are a list under ``text``."""
    if row.get("answers") is not None:
        return answers(row)
    read = record(row)
    found = []
    for side, answer in zip(sides(read), read.answers, strict=True):
        own = {key.removeprefix(f"{side}_"): value for key, value in row.items() if key.startswith(f"{side}_")}
        found.append({**own, "text": list(answer.messages) if answer.messages else answer.text})
    return found


def paired(row: Mapping[str, Any], better: Mapping[str, Any], worse: Mapping[str, Any]) -> dict[str, Any]:
    """The row as a pair of two answers with ``text``; what else is known of them goes with them, as ``chosen_score``,
    ``rejected_model``... What told of the answers that the row had before goes."""
    made = without_answers(row)
    for side, answer in (("chosen", better), ("rejected", worse)):
        made[side] = answer["text"]
        made |= {f"{side}_{key}": value for key, value in answer.items() if key != "text"}
    return made


def without_answers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without its answers and all that tells of them."""
    kinds = ("chosen", "rejected", "completion", "completions", "messages")
    named = {*kinds, "answers", "label", "labels", "margin"}
    told = tuple(f"{kind}_" for kind in kinds)
    return {key: value for key, value in row.items() if key not in named and not key.startswith(told)}


def _worst_first(ends: tuple[float, float]) -> tuple[float, float]:
    """``ends`` of a scale.

    Raises:
        ValueError: they are equal, or stand the other way round.
    """
    if not ends[0] < ends[1]:
        raise ValueError("the worst is below the best")
    return ends


Ends = Annotated[tuple[float, float], AfterValidator(_worst_first)]
"""An option: the worst and the best of a scale."""
