"""Chat turns: what a message must look like, and where a conversation's prompt ends and its answer begins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from grainline.data.fields import is_list, show, text, whole
from grainline.errors import DataError, nearest
from grainline.types import Answer

ROLES = ("system", "developer", "user", "assistant", "tool")
_FOREIGN = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant"}

Messages = tuple[Mapping[str, Any], ...]


def messages(value: Sequence[Any], *, where: str) -> Messages:
    """Chat turns with known roles and text contents; keys whose value is null are dropped (Arrow fills them in)."""
    if not value:
        raise DataError("the conversation has no turns.", where=where)
    return tuple(_message(turn, where=f"{where}[{number}]") for number, turn in enumerate(value))


def _message(turn: Any, *, where: str) -> Mapping[str, Any]:
    if not isinstance(turn, Mapping):
        raise DataError(
            f"{show(turn)} is not a chat turn.", where=where, instead='Write {"role": ..., "content": ...}.'
        )
    found = {key: value for key, value in turn.items() if value is not None}
    if "role" not in found:
        instead = "Rename from/value to role/content." if "from" in found else f"It has: {', '.join(sorted(turn))}."
        raise DataError("the turn has no 'role'.", where=where, instead=instead)
    role = found["role"]
    if role not in ROLES:
        meant = _FOREIGN.get(str(role).lower())
        instead = f"Write {meant!r}." if meant else nearest(str(role), ROLES)
        raise DataError(f"unknown role {role!r}.", where=where, instead=instead)
    return found | _content(found, where=where)


def _content(turn: Mapping[str, Any], *, where: str) -> dict[str, str]:
    """The text of one turn; only a turn that calls tools may go without, and only instructions may be empty."""
    content, role = turn.get("content"), turn["role"]
    if content is None and role == "assistant" and turn.get("tool_calls"):
        return {}
    if is_list(content):
        kinds = {str(part.get("type")) if isinstance(part, Mapping) else type(part).__name__ for part in content}
        if kinds - {"text"}:
            raise DataError(
                f"content holds {', '.join(sorted(kinds - {'text'}))}; only text can be trained on.", where=where
            )
        content = "".join(str(part.get("text") or "") for part in content)
    may_be_empty = role in ("system", "developer", "tool") or bool(turn.get("tool_calls"))
    if may_be_empty and isinstance(content, str):
        return {"content": whole(content, where=f"{where}.content")}
    return {"content": text(content, where=f"{where}.content")}


def prompt(value: Sequence[Any], *, where: str) -> Messages:
    """Turns that end where the assistant is asked to speak."""
    turns = messages(value, where=where)
    last = turns[-1]["role"]
    if last == "assistant":
        raise DataError(
            "the prompt ends with an assistant turn, so nothing asks for the answer.",
            where=where,
            instead="Move that turn to the beginning of both answers, or end the prompt with the user's turn.",
        )
    if last not in ("user", "tool"):
        raise DataError(
            f"the prompt ends with a {last} turn.", where=where, instead="Its last turn must be the user's."
        )
    return turns


def answer(value: Any, *, where: str) -> Answer:
    """What the assistant says: a text, one assistant turn (the same thing), or several turns that it begins and ends.

    A turn that carries more than text (tool calls, reasoning) is kept whole in ``Answer.messages`` for the template.
    """
    if not is_list(value):
        return Answer(text(value, where=where))
    if not value:
        raise DataError("the answer is empty.", where=where, instead="Remove the row or write the answer.")
    turns = messages(value, where=where)
    if turns[0]["role"] != "assistant" or turns[-1]["role"] != "assistant":
        at = 0 if turns[0]["role"] != "assistant" else len(turns) - 1
        raise DataError(
            f"the answer {'ends' if at else 'begins'} with a {turns[at]['role']} turn.",
            where=f"{where}[{at}]",
            instead="An answer begins and ends with the assistant's turns; what comes before belongs to the prompt.",
        )
    if len(turns) == 1 and set(turns[0]) == {"role", "content"}:
        return Answer(turns[0]["content"])
    words = (turn.get("content") or json.dumps(turn.get("tool_calls"), default=str) for turn in turns)
    return Answer("\n".join(words), messages=turns)


def part_ways(chosen: Sequence[Any], rejected: Sequence[Any], *, where: str) -> tuple[Messages, Messages, Messages]:
    """(prompt, chosen, rejected) of two whole conversations: the prompt is their common beginning, turn by turn."""
    left, right = messages(chosen, where=f"{where} chosen"), messages(rejected, where=f"{where} rejected")
    common = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    if left == right:
        raise DataError("chosen and rejected are the same.", where=where, instead="Remove the row.")
    for name, turns in (("chosen", left), ("rejected", right)):
        if common == len(turns):
            raise DataError(
                "the answer is empty: the other conversation begins with all of this one.", where=f"{where} {name}"
            )
    roles = {left[common]["role"], right[common]["role"]}
    if common == 0 or roles != {"assistant"}:
        raise DataError(
            f"chosen and rejected have different prompts: they part ways at turn {common + 1}"
            f" ({' / '.join(sorted(roles))}).",
            where=where,
            instead="Both must agree up to the assistant's turn, or give the prompt in a column of its own.",
        )
    return left[:common], left[common:], right[common:]


def after(turns: Any, *, prompt: Messages, where: str) -> Any:
    """An answer without the prompt it repeats: some files write the whole conversation beside an explicit prompt."""
    if not is_list(turns) or len(turns) <= len(prompt):
        return turns
    whole = messages(turns, where=where)
    return whole[len(prompt) :] if whole[: len(prompt)] == prompt else turns


def spoken(prompt: str | Messages) -> str:
    """The words of a prompt, turn by turn."""
    return prompt if isinstance(prompt, str) else "\n".join(str(turn.get("content") or "") for turn in prompt)
