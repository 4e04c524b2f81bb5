"""One raw row -> :class:`~grainline.types.Record`, or a sentence that says why not.

Rows are read as TRL reads them, so a file that trains there trains here, and each row is classified by its own columns,
never by those of the first row. A null value is an absent one (Arrow fills the gaps of a mixed table with nulls).

============  =======================================  ===========================================================
kind          columns                                  what becomes of it
============  =======================================  ===========================================================
pair          ``[prompt] chosen rejected``             answers (chosen, rejected), ``label`` None
labelled      ``prompt completion label``              one answer and its label
completion    ``prompt completion``                    one answer, label True (supervised fine-tuning)
stepwise      ``prompt completions labels``            one answer, steps joined by newlines, each a span with score
                                                       1 or 0 and aspect "correctness"; label True if all steps are
messages      ``messages``                             one answer, the last assistant turn; label True
============  =======================================  ===========================================================

``prompt`` is text or chat turns; an answer is text, one assistant turn or several. Under a chat prompt a plain-text
answer is the assistant's turn. Without ``prompt``, two conversations share their common turns; two texts share their
common beginning up to a word boundary (TRL cuts inside a word), a single space going with the answers.

Optional: ``weight`` (> 0), ``margin``, ``tools``, ``chat_template_kwargs``, ``id``, and ``chosen_spans``,
``rejected_spans``, ``completion_spans``: lists of ``{start, end, aspect, type, score}`` in characters of the answer.
**A span without a score marks an error: it gets 0.0 on the scale from 0 (wrong) to 1 (right).** Its aspect is
``aspect``, else ``type``, else "". Scores on another scale come with ``score_range``, [worst, best], and are mapped to
0..1 by it; without it they stand as they are.

A matrix of scores, segments x aspects, is three columns: ``aspect_names``; ``chosen_segments``, the pieces of the
answer as [start, end] or as their texts in order; ``chosen_aspect_scores``, a row for each piece, null where an aspect
was not judged. (``rejected_``, ``completion_`` likewise.) They become spans; pieces without scores say nothing. Of
further columns those that hold a number are kept under their names, for objectives that ask for one
(``chosen_uncertainty``); others are left alone, but one that looks like a misspelt name is refused.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from grainline.data import chat, fields
from grainline.errors import DataError, nearest
from grainline.types import Answer, Record, Span

_KEYS = ("chosen", "rejected", "completion", "completions", "labels", "label", "messages")
_FINE = tuple(f"{side}_{kind}" for side in ("chosen", "rejected", "completion") for kind in fields.FINE)
_OPTIONAL = ("weight", "margin", "tools", "chat_template_kwargs", "score_range", "aspect_names", *_FINE)
_QUESTIONS = ("instruction", "question", "query", "input")  # other tools' names of the prompt
_OURS = ("add_generation_prompt", "continue_final_message", "conversation", "return_dict", "tokenize", "tools")


def record(row: Mapping[str, Any], *, where: str, id: str) -> Record:
    """One raw row as a Record called ``id``; ``where`` is its "file:row" for messages."""
    given = {key: value for key, value in row.items() if value is not None}
    _refuse_lookalikes(row, where=where)
    for column in ("images", "image"):
        if given.get(column):
            raise DataError("images cannot be trained on.", where=f"{where} {column}", instead="Remove the column.")
    if "chosen" in given or "rejected" in given:
        prompt, answers, label = _pair(given, where=where)
    elif "completions" in given:
        prompt, answers, label = _stepwise(given, where=where)
    elif "completion" in given:
        prompt, answers, label = _labelled(given, where=where)
    elif "messages" in given:
        prompt, answers, label = _messages(given, where=where)
    else:
        absent = [key for key in _KEYS if key in row]
        raise DataError(
            f"{absent[0]} is null." if absent else "the row has no answer.",
            where=where,
            instead="It needs chosen and rejected, completion, completions and labels, or messages. "
            + nearest("chosen", map(str, row)),
        )
    return Record(
        id=id,
        prompt=prompt,
        answers=answers,
        label=label,
        weight=fields.number(given, "weight", where=where, positive=True) or 1.0,
        margin=fields.number(given, "margin", where=where),
        tools=_tools(given, prompt, where=where),
        template=_template(given, prompt, where=where),
        where=where,
        numbers=_numbers(given),
    )


def same_kind(records: Iterable[Record], *, where: str = "") -> None:
    """Raise unless all records are pairs or all are labelled; the message names the first of each."""
    first: dict[bool, Record] = {}
    for one in records:
        first.setdefault(one.is_pair, one)
        if len(first) == 2:
            raise DataError(
                f"pairs and labelled rows are mixed: {first[True].where or first[True].id} is a pair, "
                f"{first[False].where or first[False].id} is labelled.",
                where=where,
                instead="Put them in two files and train on one kind.",
            )


def _numbers(row: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Finite numbers in columns that mean nothing here, sorted by name."""
    further = sorted(row.keys() - {*_OPTIONAL, *_KEYS, "prompt", "id"}, key=str)
    return tuple((str(key), float(row[key])) for key in further if fields.is_number(row[key]))


@functools.lru_cache(maxsize=64)
def _lookalike(columns: frozenset[str]) -> tuple[str, str] | None:
    """A column that is nearly one of ours, and ours: left alone, ``weigth`` would silently weigh nothing."""
    for column in sorted(columns - {*_OPTIONAL, *_KEYS, "prompt", "id"}):
        close = difflib.get_close_matches(column.lower(), (*_OPTIONAL, "prompt"), n=1, cutoff=0.82)
        if close and close[0] not in columns:
            return column, close[0]
    return None


def _refuse_lookalikes(row: Mapping[str, Any], *, where: str) -> None:
    found = _lookalike(frozenset(map(str, row)))
    if found:
        raise DataError(
            f"unknown column {found[0]!r}.",
            where=where,
            instead=f"Did you mean {found[1]!r}? Rename it so, or otherwise if it is something else.",
        )


_Parts = tuple[str | chat.Messages, tuple[Answer, ...], bool | None]


def _pair(row: Mapping[str, Any], *, where: str) -> _Parts:
    for column in ("chosen", "rejected"):
        _require(row, column, where=where)
    if "completion" in row:
        raise DataError("both chosen and completion are given: a pair or a labelled row?", where=where)
    prompt, sides = _sides(row, where=where)
    answers = tuple(
        fields.with_spans(chat.answer(side, where=f"{where} {name}"), row, name, where=where)
        for name, side in zip(("chosen", "rejected"), sides, strict=True)
    )
    if answers[0].text == answers[1].text and answers[0].messages == answers[1].messages:
        raise DataError("chosen and rejected are the same.", where=where, instead="Remove the row.")
    return prompt, answers, None


def _sides(row: Mapping[str, Any], *, where: str) -> tuple[str | chat.Messages, tuple[Any, Any]]:
    """The prompt, given or implied, and what follows it on each side."""
    chosen, rejected = row["chosen"], row["rejected"]
    chats = fields.is_list(chosen) and fields.is_list(rejected)
    if "prompt" not in row or (chats and _repeats(row["prompt"], chosen)):
        if chats:
            shared, *sides = chat.part_ways(chosen, rejected, where=where)
            return chat.prompt(shared, where=f"{where} prompt"), (sides[0], sides[1])
        return _common_text(row, where=where)
    prompt = _prompt(row, where=where, answers=("chosen", "rejected"))
    if isinstance(prompt, str):
        return prompt, (chosen, rejected)
    left, right = (chat.after(row[name], prompt=prompt, where=f"{where} {name}") for name in ("chosen", "rejected"))
    return prompt, (left, right)


def _repeats(prompt: Any, conversation: Any) -> bool:
    """Whether a text prompt is the first user turn of a whole conversation (as UltraFeedback writes it)."""
    users = [turn for turn in conversation if isinstance(turn, Mapping) and turn.get("role") == "user"]
    return isinstance(prompt, str) and bool(users) and users[0].get("content") == prompt


def _common_text(row: Mapping[str, Any], *, where: str) -> tuple[str, tuple[str, str]]:
    chosen, rejected = (fields.text(row[name], where=f"{where} {name}") for name in ("chosen", "rejected"))
    question = next((name for name in _QUESTIONS if name in row), None)
    if question:
        raise DataError(
            f"there is no column 'prompt', but {question!r}.", where=where, instead="Rename it to 'prompt'."
        )
    for name in _FINE:
        if row.get(name):
            raise DataError("spans need an explicit prompt to count from.", where=f"{where} {name}")
    if chosen == rejected:
        raise DataError("chosen and rejected are the same.", where=where, instead="Remove the row.")
    shortest = min(len(chosen), len(rejected))
    end = next((n for n in range(shortest) if chosen[n] != rejected[n]), shortest - 1)
    while end and not chosen[end - 1].isspace():
        end -= 1
    if end and chosen[end - 1] == " ":  # tokenizers write a space at the beginning of the next word
        end -= 1
    if not chosen[:end].strip():
        raise DataError(
            "no prompt: chosen and rejected do not begin with the same words.",
            where=where,
            instead="Add a column 'prompt'.",
        )
    return chosen[:end], (chosen[end:], rejected[end:])


def _labelled(row: Mapping[str, Any], *, where: str) -> _Parts:
    prompt = _prompt(row, where=where, answers=("completion",))
    said = row["completion"]
    if not isinstance(prompt, str):
        said = chat.after(said, prompt=prompt, where=f"{where} completion")
    answer = chat.answer(said, where=f"{where} completion")
    return prompt, (fields.with_spans(answer, row, "completion", where=where),), _label(row, where=where)


def _messages(row: Mapping[str, Any], *, where: str) -> _Parts:
    if not fields.is_list(row["messages"]):
        raise DataError(f"{fields.show(row['messages'])} is not a conversation.", where=f"{where} messages")
    turns = chat.messages(row["messages"], where=f"{where} messages")
    if turns[-1]["role"] != "assistant" or len(turns) < 2:
        raise DataError("the conversation must be a prompt and then the assistant's turn.", where=f"{where} messages")
    prompt = chat.prompt(turns[:-1], where=f"{where} messages")
    answer = chat.answer(turns[-1:], where=f"{where} messages")
    return prompt, (fields.with_spans(answer, row, "completion", where=where),), _label(row, where=where)


def _stepwise(row: Mapping[str, Any], *, where: str) -> _Parts:
    _require(row, "labels", where=where)
    steps, labels = row["completions"], row["labels"]
    if not fields.is_list(steps) or not fields.is_list(labels) or len(steps) != len(labels) or not steps:
        raise DataError("completions and labels must be two lists of the same length, at least one.", where=where)
    prompt = _prompt(row, where=where, answers=())
    spans, start = [], 0
    for number, (step, label) in enumerate(zip(steps, labels, strict=True)):
        words = fields.text(step, where=f"{where} completions[{number}]")
        right = fields.flag(label, where=f"{where} labels[{number}]")
        spans.append(Span(start, start + len(words), "correctness", float(right)))
        start += len(words) + 1
    return prompt, (Answer("\n".join(steps), tuple(spans)),), all(labels)


def _prompt(row: Mapping[str, Any], *, where: str, answers: Iterable[str]) -> str | chat.Messages:
    value = _require(row, "prompt", where=where)
    if fields.is_list(value):
        return chat.prompt(value, where=f"{where} prompt")
    for name in answers:
        if fields.is_list(row[name]):
            raise DataError(
                f"the prompt is plain text but {name} is a conversation.",
                where=where,
                instead='Write the prompt as chat turns: [{"role": "user", "content": ...}].',
            )
    return fields.text(value, where=f"{where} prompt")


def _require(row: Mapping[str, Any], column: str, *, where: str) -> Any:
    if column not in row:
        raise DataError(f"column {column!r} is missing or null.", where=where, instead=nearest(column, map(str, row)))
    return row[column]


def _label(row: Mapping[str, Any], *, where: str) -> bool:
    return fields.flag(row["label"], where=f"{where} label") if "label" in row else True


def _tools(row: Mapping[str, Any], prompt: Any, *, where: str) -> tuple[Mapping[str, Any], ...] | None:
    tools = fields.parsed(row.get("tools"), where=f"{where} tools")
    if not tools:
        return None
    if not fields.is_list(tools) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError("tools must be a list of JSON schemas.", where=f"{where} tools")
    _refuse_plain(prompt, where=f"{where} tools")
    return tuple(tools)


def _template(row: Mapping[str, Any], prompt: Any, *, where: str) -> Mapping[str, Any] | None:
    where = f"{where} chat_template_kwargs"
    options = fields.parsed(row.get("chat_template_kwargs"), where=where)
    if not options:
        return None
    if not isinstance(options, Mapping):
        raise DataError(f"{fields.show(options)} is not a map of options.", where=where)
    ours = sorted(set(options) & set(_OURS))
    if ours:
        raise DataError(f"{ours[0]!r} is not for a row to say.", where=where)
    _refuse_plain(prompt, where=where)
    return {key: value for key, value in options.items() if value is not None}


def _refuse_plain(prompt: Any, *, where: str) -> None:
    if isinstance(prompt, str):
        raise DataError(
            "a plain-text prompt goes through no chat template.", where=where, instead="Write the prompt as chat turns."
        )
