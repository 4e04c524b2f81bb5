"""Rows and the questions that they ask: what stands before an answer, which answers a row holds, and what a reward says
of them, streamed row by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grainline import rooms
from grainline.curation._parts import answers, identity, record
from grainline.curation._seam import Bench, Row
from grainline.data import fields
from grainline.data.row_checks import sides
from grainline.errors import DataError
from grainline.places import cache_dir
from grainline.rewards._seam import Asked, Desk, Prompt, Scores, Scoring
from grainline.types import Record

ANSWERED = ("chosen", "rejected", "completion", "completions", "labels", "label", "messages")


class Said(NamedTuple):
    """An answer of a row, under the name that its columns begin with ("" in the column ``answers``)."""

    side: str
    text: str
    segments: tuple[tuple[int, int], ...]  # pieces that the row has cut it into; () = none
    plain: bool = True  # False: several turns, whose parts have no place in one text


def is_answered(row: Row) -> bool:
    """Whether a row has an answer of its own, beside those of ``answers``."""
    return any(row.get(column) is not None for column in ANSWERED)


def question(row: Row) -> Record:
    """The row as training would read it; one without an answer (or with ``answers``) has a word for one.

    Raises:
        DataError: there is no prompt, or it is unusable.
    """
    own = {key: value for key, value in row.items() if key != "answers"}
    return record(own if is_answered(row) else {**own, "completion": "Yes."})


def conversation(row: Row) -> Record:
    """The row as training would read it; one that is not answered has no answers."""
    return question(row) if is_answered(row) else question(row)._replace(answers=())


def exchanges(row: Row) -> list[tuple[Prompt, str]]:
    """Each thing that was asked in the row's conversation, with all before it, and what was answered (of a pair: what
    was chosen).

    Raises:
        DataError: nothing was answered.
    """
    read = conversation(row)
    if not read.answers:
        raise DataError("there is no answer to be scored.", where=identity(row), instead="Score rows that have one.")
    answer = read.answers[0]
    if isinstance(read.prompt, str):
        return [(read.prompt, answer.text)]
    turns = (*read.prompt, *(answer.messages or ({"role": "assistant", "content": answer.text},)))
    spoke = [n for n, turn in enumerate(turns) if n and turn["role"] == "assistant" and turn.get("content")]
    return [(turns[:n], turns[n]["content"]) for n in spoke]


def said(row: Row) -> tuple[Prompt, list[Said]]:
    """What is asked, and every answer of the row: those of ``answers`` where it has that column, else its own."""
    where = identity(row)
    if row.get("answers") is not None:
        return question(row).prompt, [
            Said("", answer["text"], _segments(answer, "segments", answer["text"], f"{where} answers[{n}]"))
            for n, answer in enumerate(answers(row))
        ]
    read = record(row)
    if isinstance(read.prompt, str) and row.get("prompt") is None:
        raise DataError(
            "the prompt stands in the answers.",
            where=f"{where} prompt",
            instead="Put the step convert before this one.",
        )
    return read.prompt, [
        Said(
            side,
            one.text,
            () if one.messages else _segments(row, f"{side}_segments", one.text, where),
            not one.messages,
        )
        for side, one in zip(sides(read), read.answers, strict=True)
    ]


def _segments(holder: Row, column: str, text: str, where: str) -> tuple[tuple[int, int], ...]:
    where = f"{where} {column}"
    return tuple(fields.pieces(text, fields.parsed(holder.get(column), where=where) or (), where=where))


def each(
    rows: Iterable[Row], ask: Callable[[Row], Sequence[Asked]], reward: Scoring
) -> Iterator[tuple[Row, list[Scores]]]:
    """Each row with what is said to its questions; the reward reads ahead as far as it likes."""
    waiting: deque[tuple[Row, int]] = deque()

    def questions() -> Iterator[Asked]:
        for row in rows:
            asked = ask(row)
            waiting.append((row, len(asked)))
            yield from asked

    heard: list[Scores] = []
    for scores in reward.score(questions()):
        while not waiting[0][1]:
            yield waiting.popleft()[0], []
        heard.append(scores)
        if len(heard) == waiting[0][1]:
            yield waiting.popleft()[0], heard
            heard = []
    while waiting:
        yield waiting.popleft()[0], []


def weights(model: str) -> tuple[str, ...]:
    """What decides the answers of ``model`` on this disk: of a run its recipe and adapter, not its logs."""
    run = Path(model).expanduser()
    adapted = (run / "recipe.yaml").is_file() and (run / "adapter").is_dir()
    return (str(run / "recipe.yaml"), str(run / "adapter")) if adapted else (model,)


def desk(bench: Bench, reward: Any) -> Desk:
    """Where a reward works that a step asks: in one folder with all jobs that ask it."""
    return Desk(cache_dir() / "rewards" / rooms.name_of(type(reward)).replace("/", "_"), bench.seed, bench.quiet)
