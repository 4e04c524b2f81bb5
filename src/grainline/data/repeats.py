"""Rows that repeat or contradict each other, or the test set. Of each row about a hundred bytes are kept, no text.

Prompts are the same when their turns are, white space and case aside; answers when they are the same to the letter.
Texts are compared by digests of 64 bits: two different ones among a million rows agree once in forty million data sets.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from grainline.data import sketch
from grainline.data.problems import Problem
from grainline.types import Record

if TYPE_CHECKING:
    import numpy as np

SAME_ID = "the id is that of another row"
AGAIN = "the row repeats another"
AGAINST = "the row contradicts another"
NEARLY = "the row nearly repeats another"
SHARED = "the prompt is also in the test set"


def digest(*parts: str) -> int:
    """64 bits of texts."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        hashed.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return int.from_bytes(hashed.digest(), "little")


def prompt_digest(record: Record) -> int:
    """The same for prompts that ask the same, white space and case aside."""
    said = [record.prompt] if isinstance(record.prompt, str) else [_turn(turn) for turn in record.prompt]
    rest = [json.dumps(record.tools, sort_keys=True, default=str)] if record.tools else []
    return digest(*(" ".join(part.casefold().split()) for part in said), *rest)


def _turn(turn: Mapping[str, Any]) -> str:
    calls = json.dumps(turn["tool_calls"], sort_keys=True, default=str) if turn.get("tool_calls") else ""
    return f"{turn['role']}: {turn.get('content') or ''} {calls}"


class Places:
    """The "file:row" of many rows, four bytes each."""

    def __init__(self) -> None:
        self._numbers = array("I")
        self._starts: list[int] = []  # where another file begins
        self._names: list[str] = []

    def append(self, where: str) -> None:
        name, _, number = where.rpartition(":")
        if not number.isascii() or not number.isdigit() or int(number) >= 2**32:
            name, number = where, "0"  # a file has no row 0
        if not self._names or self._names[-1] != name:
            self._starts.append(len(self._numbers))
            self._names.append(name)
        self._numbers.append(int(number))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, n: int) -> str:
        name = self._names[bisect.bisect_right(self._starts, n) - 1]
        return f"{name}:{self._numbers[n]}" if self._numbers[n] else name


class Prompts:
    """The prompts of a test set."""

    def __init__(self) -> None:
        self.places, self.digests = Places(), array("Q")

    def add(self, records: Sequence[Record]) -> None:
        for record in records:
            self.places.append(record.where)
            self.digests.append(prompt_digest(record))


class Ledger:
    """What is kept of each row."""

    def __init__(self) -> None:
        self.places = Places()
        self.ids, self.prompts, self.left, self.right = array("Q"), array("Q"), array("Q"), array("Q")
        self._asked, self._said = bytearray(), bytearray()  # sketches

    def add(self, records: Sequence[Record]) -> None:
        if not records:
            return
        for record in records:
            self.places.append(record.where)
            self.ids.append(digest(record.id))
            self.prompts.append(prompt_digest(record))
            answers = [
                digest(a.text, json.dumps(a.messages, default=str) if a.messages else "") for a in record.answers
            ]
            self.left.append(answers[0])
            self.right.append(answers[1] if record.is_pair else int(bool(record.label)))
        self._asked += sketch.sketches([asked(record) for record in records]).tobytes()
        self._said += sketch.sketches([said(record) for record in records]).tobytes()

    @property
    def distinct_prompts(self) -> int:
        import numpy as np

        return len(np.unique(_numbers(self.prompts)))

    def problems(self, test: Prompts | None) -> Iterator[Problem]:
        """All that takes more than one row to see."""
        yield from self._ids()
        told: set[int] = set()
        for problem, later in self._repeats():
            told.add(later)
            yield problem
        for early, late in sketch.alike(_sketches(self._asked), _sketches(self._said)):
            if late not in told:
                what = f"nearly the same words as {self.places[early]}."
                yield self._warning(NEARLY, late, early, what, "Remove one, unless both are meant.")
        yield from self._shared(test) if test else ()

    def _ids(self) -> Iterator[Problem]:
        for rows in _equal(_numbers(self.ids)):
            for late in rows[1:]:
                first, where = self.places[rows[0]], self.places[late]
                what, instead = f"the id is that of {first}.", "Give each row its own id."
                yield Problem(SAME_ID, "error", f"{where} id", what, instead, first)

    def _repeats(self) -> Iterator[tuple[Problem, int]]:
        """A row is compared with the first that gave the same answers the same way round, and the other way round."""
        import numpy as np

        left, right = _numbers(self.left), _numbers(self.right)
        pair = right > 1  # a labelled row has its label there
        low = np.where(pair, np.minimum(left, right), left)
        high = np.where(pair, np.maximum(left, right), 0)
        same = (_numbers(self.prompts) * np.uint64(3) + low) * np.uint64(5) + high
        for rows in _equal(same):
            first: dict[bool, int] = {}
            for row in rows:
                way = bool(left[row] > right[row]) if pair[row] else bool(right[row])
                if (not way) in first:
                    yield self._contradiction(row, first[not way], pair=bool(pair[row])), row
                if way in first:
                    what = f"the same prompt and answers as {self.places[first[way]]}."
                    instead = "Remove one; a row that shall count twice says weight: 2."
                    yield self._warning(AGAIN, row, first[way], what, instead), row
                first.setdefault(way, row)

    def _contradiction(self, row: int, other: int, *, pair: bool) -> Problem:
        what = "same two answers" if pair else "same answer"
        how = "preferred the other way round" if pair else "with the other label"
        instead = "Remove both, or keep the one that is right."
        return self._warning(AGAINST, row, other, f"the {what} as in {self.places[other]}, {how}.", instead)

    def _shared(self, test: Prompts) -> Iterator[Problem]:
        import numpy as np

        asked, first = np.unique(_numbers(test.digests), return_index=True)
        prompts = _numbers(self.prompts)
        for row in np.flatnonzero(np.isin(prompts, asked)).tolist():
            other = test.places[int(first[np.searchsorted(asked, prompts[row])])]
            yield Problem(
                SHARED,
                "warning",
                self.places[row],
                f"the prompt is also that of {other} in the test set.",
                "Remove the row from one of the two, or the test measures memory.",
                other,
            )

    def _warning(self, kind: str, row: int, other: int, what: str, instead: str) -> Problem:
        return Problem(kind, "warning", self.places[row], what, instead, self.places[other])


def asked(record: Record) -> list[str]:
    if isinstance(record.prompt, str):
        return sketch.words(record.prompt)
    return [word for turn in record.prompt for word in (turn["role"], *sketch.words(turn.get("content") or ""))]


def said(record: Record) -> list[str]:
    """All answers' words, whichever was preferred."""
    return [word for answer in record.answers for word in ("\n", *sketch.words(answer.text))]


def _numbers(kept: array[int]) -> np.ndarray:
    import numpy as np

    return np.frombuffer(kept, np.uint64) if kept else np.empty(0, np.uint64)


def _sketches(kept: bytearray) -> np.ndarray:
    import numpy as np

    return np.frombuffer(kept, np.uint8).reshape(-1, sketch.HASHES)


def _equal(keys: np.ndarray) -> Iterator[list[int]]:
    """Groups of two and more places that hold the same key: each in order, and by where they first repeat."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    changes = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    starts, stops = np.concatenate([[0], changes]), np.concatenate([changes, [len(keys)]])
    several = np.flatnonzero(stops - starts > 1)
    for n in several[np.argsort(order[starts[several] + 1])]:
        yield order[starts[n] : stops[n]].tolist()
