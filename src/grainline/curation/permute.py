r"""Show the same documents, or the same two answers, in other places, so that nothing is learnt of the place.

``what=documents``: PAPEFT's augmentation (Zhang et al. 2024, arXiv:2404.01430): from :math:`[P, X_1 \dots X_K]` rows
:math:`[P, X_{\pi(1)} \dots X_{\pi(K)}]` are made so that each document stands in every place. The paper permutes
[secondary]; here a random cycle of all K places is drawn for each row and its powers are taken, the first of which is
the row itself, so K rows show every document in every place exactly once [inferred]. Documents are the stretches of the
prompt's last turn that begin with ``mark``; what stands before the first, and from ``end`` on, stays. Answers must name
a document by what it is, not by its number in the list; a column that holds that number, ``gold``, is set anew.

``what=answers``: both orders of two answers in a judging prompt [inferred]. The texts behind the two ``labels``'
marks change places, the marks do not; in the verdicts (chosen, rejected, completion) the labels are exchanged.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from grainline.curation._parts import record
from grainline.curation._seam import Bench, Row, Step, identity, signed
from grainline.data import fields
from grainline.data.row_checks import sides
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import spec


@spec
class Permute:
    paper: ClassVar[str] = "arXiv:2404.01430"
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    what: Literal["documents", "answers"] = "documents"
    """What changes places: the documents of a prompt, or the two answers of a judging prompt."""
    mark: str = "\n\nDocument"
    """Text that each document begins with."""
    end: str = ""
    """Text that follows the last document and stays where it is; empty = the documents reach to the turn's end."""
    copies: int = Field(0, ge=0)
    """Rows made of one, itself included; 0 = as many as there are documents. More than that repeats nothing."""
    gold: str = ""
    """Column that holds the number, from 0, of a document: it follows it."""
    labels: tuple[str, str] = ("A", "B")
    """What the two answers are called in the verdicts."""
    marks: tuple[str, str] = ("[A]", "[B]")
    """Texts that stand before the first and before the second answer in a judging prompt."""

    @field_validator("mark")
    @classmethod
    def _something(cls, mark: str) -> str:
        if not mark:
            raise ValueError("an empty mark is everywhere")
        return mark

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield lambda rows: self._each(rows, bench)

    def _each(self, rows: Iterable[Row], bench: Bench) -> Iterator[Sequence[Row]]:
        for row in rows:
            made = self._ordered(row, bench.luck(row)) if self.what == "documents" else [row, self._swapped(row)]
            yield [row, *(signed(other, written(self)) for other in made[1:])]

    def _ordered(self, row: Row, luck: random.Random) -> Sequence[Row]:
        head, documents, rest = self._parted(row)
        said, blank = zip(*map(_bare, documents), strict=True)
        made = []
        for order in orders(len(documents), luck)[: self.copies or None]:
            shown = "".join(self.mark + said[n] + white for n, white in zip(order, blank, strict=True))
            made.append({**_asking(row, head + shown + rest), **self._gold(row, order)})
        return made

    def _parted(self, row: Row) -> tuple[str, list[str], str]:
        """The last turn: what stands before the documents, each without its mark, what stands behind."""
        asked = _asked(row)
        stop = asked.rfind(self.end) if self.end else len(asked)
        head, *documents = asked[: max(0, stop)].split(self.mark)
        if len(documents) < 2:
            what = f"{len(documents)} documents begin with {self.mark!r}" + (
                f" before {self.end!r}." if self.end else "."
            )
            instead = "Write permute:mark=TEXT, the text that each begins with."
            raise DataError(what, where=f"{identity(row)} prompt", instead=instead)
        return head, documents, asked[stop:]

    def _gold(self, row: Row, order: Sequence[int]) -> dict[str, int]:
        if not self.gold:
            return {}
        value = row.get(self.gold)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(order):
            what = f"{fields.show(value)} is the number of none of {len(order)} documents."
            raise DataError(what, where=f"{identity(row)} {self.gold}")
        return {self.gold: list(order).index(value)}

    def _swapped(self, row: Row) -> Row:
        """The row with its two answers in each other's places, and verdicts that say so."""
        asked, (first, second) = _asked(row), self.marks
        start, middle = asked.find(first), asked.rfind(second)
        stop = asked.rfind(self.end) if self.end else len(asked)
        if not 0 <= start < start + len(first) <= middle < middle + len(second) <= stop:
            what = f"{first!r} and {second!r} do not stand there in this order" + (
                f" before {self.end!r}." if self.end else "."
            )
            instead = "Write permute:marks=[FIRST, SECOND]."
            raise DataError(what, where=f"{identity(row)} prompt", instead=instead)
        one, white = _bare(asked[start + len(first) : middle])
        other, behind = _bare(asked[middle + len(second) : stop])
        shown = asked[: start + len(first)] + other + white + second + one + behind + asked[stop:]
        return {**_asking(row, shown), **self._verdicts(row)}

    def _verdicts(self, row: Row) -> dict[str, Any]:
        names = sides(record(row))
        for name in names:
            if row.get(name) is None:
                raise DataError("there is no verdict.", where=f"{identity(row)} {name}", instead="It needs a pair.")
        retold = {name: _each_text(row[name], self._mirrored) for name in names}
        if all(retold[name] == row[name] for name in names):
            what = f"no verdict says {self.labels[0]!r} or {self.labels[1]!r}."
            raise DataError(what, where=identity(row), instead="Write permute:labels=[ONE, OTHER].")
        if len(self.labels[0]) != len(self.labels[1]) and any(
            row.get(f"{n}_{kind}") for n in names for kind in fields.FINE
        ):
            raise DataError("spans would move with labels of different length.", where=identity(row))
        return retold

    def _mirrored(self, text: str) -> str:
        one, other = self.labels
        either = rf"(?<!\w)(?:{re.escape(one)}|{re.escape(other)})(?!\w)"
        return re.sub(either, lambda found: other if found[0] == one else one, text)


def orders(count: int, luck: random.Random) -> list[tuple[int, ...]]:
    """``count`` orders of so many things, the first as they are: each thing stands in each place exactly once."""
    ring = list(range(count))
    luck.shuffle(ring)
    place = {thing: n for n, thing in enumerate(ring)}
    return [tuple(ring[(place[thing] + turn) % count] for thing in range(count)) for turn in range(count)]


def _bare(text: str) -> tuple[str, str]:
    """A text and the white space behind it, which belongs to its place."""
    said = text.rstrip()
    return said, text[len(said) :]


def _asked(row: Row) -> str:
    """The prompt, or its last turn."""
    prompt = row.get("prompt")
    said = (
        prompt[-1].get("content") if fields.is_list(prompt) and prompt and isinstance(prompt[-1], Mapping) else prompt
    )
    if said is None:
        raise DataError("there is no prompt.", where=f"{identity(row)} prompt", instead="Put the step convert before.")
    return fields.text(said, where=f"{identity(row)} prompt")


def _asking(row: Row, text: str) -> dict[str, Any]:
    """The row with another prompt, or another last turn."""
    prompt = row["prompt"]
    return {**row, "prompt": text if isinstance(prompt, str) else [*prompt[:-1], {**prompt[-1], "content": text}]}


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """An answer, text or turns, with every text changed."""
    if isinstance(value, str):
        return change(value)
    return [
        {**turn, "content": change(turn["content"])} if isinstance(turn.get("content"), str) else turn for turn in value
    ]
