"""How a judge must answer, and how that is read: strictly. What is not exactly as asked is :class:`Unreadable`.

Read is JSON alone, JSON in one code fence, and either behind a reasoning model's ``<think>...</think>``. Nothing is
searched for, repaired or rounded: a score in a sentence may be of another piece.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import pydantic

Number = int | float | None


class Unreadable(ValueError):
    """The reply is not as asked; the message says to the judge what is wrong with it."""


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    reason: str = ""


class _Piece(pydantic.BaseModel):
    model_config = _Strict.model_config

    piece: int
    scores: dict[str, Number]


class _Scored(_Strict):
    pieces: list[_Piece]


class _Compared(_Strict):
    better: Literal["first", "second", "tie"]


def how_to_score(pieces: int, aspects: Sequence[str], scale: tuple[float, float], *, reason: bool) -> str:
    """What the judge is told of the form of its answer."""
    low, high = (f"{end:g}" for end in scale)
    said = '"reason": "one sentence", ' if reason else ""
    scores = ", ".join(f"{json.dumps(aspect)}: SCORE" for aspect in dict.fromkeys(aspects))
    count = "one piece, number 1" if pieces == 1 else f"{pieces} pieces, numbered 1 to {pieces}"
    return (
        f'Answer with JSON alone:\n{{{said}"pieces": [{{"piece": NUMBER, "scores": {{{scores}}}}}]}}\n'
        f"There is {count}: one entry each, in that order. Each SCORE is a number from {low} to {high}, or null."
    )


def how_to_compare(*, reason: bool) -> str:
    said = '"reason": "one sentence", ' if reason else ""
    return f'Answer with JSON alone:\n{{{said}"better": "first" or "second" or "tie"}}'


def complaint(why: str) -> dict[str, str]:
    """What is said to the judge of a reply that could not be read."""
    return {"role": "user", "content": f"That could not be read: {why}. Answer again, in the form asked for."}


def scores(text: str, pieces: int, aspects: Sequence[str], scale: tuple[float, float]) -> list[tuple[float, ...]]:
    """The score of each piece in each aspect; null is NaN.

    Raises:
        Unreadable: no such JSON, other pieces or aspects than were asked, or a score off the scale.
    """
    read = _validated(_Scored, text).pieces
    found = [entry.piece for entry in read]
    if found != list(range(1, pieces + 1)):
        raise Unreadable(f"there must be one entry for each piece from 1 to {pieces} in order, not {found}")
    for entry in read:
        if set(entry.scores) != set(aspects):
            raise Unreadable(
                f"piece {entry.piece} must be scored in {sorted(set(aspects))}, not {sorted(entry.scores)}"
            )
        for aspect, score in entry.scores.items():
            if score is not None and not scale[0] <= score <= scale[1]:
                raise Unreadable(f"piece {entry.piece}, {aspect}: {score} is not between {scale[0]:g} and {scale[1]:g}")
    return [tuple(_number(entry.scores[aspect]) for aspect in aspects) for entry in read]


def preference(text: str) -> float:
    """1 where the first answer is better, 0 where the second is, 1/2 at a tie.

    Raises:
        Unreadable: no such JSON.
    """
    return {"first": 1.0, "tie": 0.5, "second": 0.0}[_validated(_Compared, text).better]


def _number(score: Number) -> float:
    return math.nan if score is None else float(score)


def _validated(model: type[Any], text: str) -> Any:
    try:
        return model.model_validate(json.loads(_bare(text), object_pairs_hook=_once_each))
    except json.JSONDecodeError as error:
        raise Unreadable(f"it is not JSON: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise Unreadable(f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}") from None


def _bare(text: str) -> str:
    said = re.sub(r"^\s*<think>.*?</think>", "", text, count=1, flags=re.DOTALL).strip()
    fenced = re.fullmatch(r"```[a-zA-Z]*\s*\n(.*)\n\s*```", said, re.DOTALL)
    return fenced[1] if fenced else said


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unreadable(f"a key stands twice among {[key for key, _ in pairs]}")
    return made
