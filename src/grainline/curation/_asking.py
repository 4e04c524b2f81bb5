"""Rows and the questions that they ask: what stands before an answer, which answers a row holds, and what a reward says
of them, streamed row by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee
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
    if is_answered(row):
        return record(row)
    return record({**{key: value for key, value in row.items() if key != "answers"}, "completion": "Yes."})


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
    rows: Iterable[Row], ask: Callable[[Row], Sequence[Asked]], scorings: Sequence[Scoring]
) -> Iterator[tuple[Row, list[tuple[Scores, ...]]]]:
    """Each row with what all of ``scorings`` say to each of its questions; they read ahead as far as they like."""
    waiting: deque[tuple[Row, int]] = deque()

    def questions() -> Iterator[Asked]:
        for row in rows:
            asked = ask(row)
            waiting.append((row, len(asked)))
            yield from asked

    streams = tee(questions(), len(scorings))
    heard: list[tuple[Scores, ...]] = []
    for scores in zip(*(one.score(stream) for one, stream in zip(scorings, streams, strict=True)), strict=True):
        while not waiting[0][1]:
            yield waiting.popleft()[0], []
        heard.append(scores)
        if len(heard) == waiting[0][1]:
            yield waiting.popleft()[0], heard
            heard = []
    while waiting:
        yield waiting.popleft()[0], []


def rewards(value: Any) -> tuple[Any, ...]:
    """One reward or a list of them, as they may be written."""
    several = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(rooms.resolve("rewards", one) for one in several)


def desk(bench: Bench, reward: Any) -> Desk:
    """Where a reward works that a step asks: in one folder with all jobs that ask it."""
    return Desk(cache_dir() / "rewards" / rooms.name_of(type(reward)).replace("/", "_"), bench.seed, bench.quiet)
