"""Put rows of other sources among these, each source as often as its weight says.

The whole part of a weight takes every row so often; the rest takes that share of the rows, drawn without replacement
by the seed, as a recipe's ``data`` with weights does. The other sources' rows are spread evenly among these, in order.
An id that was there before is numbered: ``a``, ``a#2``... Of each row eight bytes are kept, of its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, ClassVar

from pydantic import Field, field_validator

from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.data import load
from grainline.data.mixture import draw
from grainline.data.repeats import digest
from grainline.errors import DataError, SpecError
from grainline.rooms import text as written
from grainline.types import spec


@spec
class Mix:
    whole: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()

    sources: dict[str, float] = Field(default_factory=dict)
    """Path (file, folder, hub id) -> how many times its rows are taken; 0.5 draws a random half."""
    weight: float = Field(1.0, gt=0)
    """How many times the rows that come in are taken."""
    split: str = "train"
    """Split of hub ids and folders."""
    format: str = ""
    """Public data set whose own columns all of ``sources`` have; empty = ours and TRL's."""

    @field_validator("sources")
    @classmethod
    def _above_zero(cls, sources: dict[str, float]) -> dict[str, float]:
        if any(not 0 < weight < float("inf") for weight in sources.values()):
            raise ValueError("weights are above zero")
        return sources

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.sources)

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        if not self.sources:
            raise SpecError("which sources?", where="mix", instead="Write mix:sources={PATH: 1.0}.")
        yield lambda rows: self._all(rows, bench.seed)

    def _all(self, rows: Iterable[Row], seed: int) -> Iterator[Sequence[Row]]:
        taken = {digest(identity(row)) for row in rows}
        number = sum(1 for _ in rows)
        whole, further = draw(number, self.weight, seed=seed, number=0)
        once_more = set(further)
        counts = [self._count(path, weight, seed, n) for n, (path, weight) in enumerate(self.sources.items(), start=1)]
        others = chain.from_iterable(
            self._drawn(path, weight, seed, n) for n, (path, weight) in enumerate(self.sources.items(), start=1)
        )
        spread = 0
        for n, row in enumerate(rows):
            copies = whole + (n in once_more)
            end = (n + 1) * sum(counts) // number
            own = [row if copy == 0 else _named(row, taken) for copy in range(copies)]
            made = own + [_named(other, taken) for other in islice(others, end - spread)]
            spread = end
            yield made or Dropped("not drawn")

    def _rows(self, path: str) -> Iterator[dict[str, Any]]:
        for row in load.named(load.raw(path, split=self.split, format=self.format)[1]):
            if isinstance(row, DataError):
                raise row
            if isinstance(row, dict):
                yield signed(row, written(self), source=path)

    def _count(self, path: str, weight: float, seed: int, number: int) -> int:
        rows = sum(1 for _ in self._rows(path))
        whole, further = draw(rows, weight, seed=seed, number=number)
        return whole * rows + len(further)

    def _drawn(self, path: str, weight: float, seed: int, number: int) -> Iterator[Row]:
        rows = sum(1 for _ in self._rows(path))
        whole, further = draw(rows, weight, seed=seed, number=number)
        for _ in range(whole):
            yield from self._rows(path)
        once_more = set(further)
        yield from (row for n, row in enumerate(self._rows(path)) if n in once_more)


def _named(row: Row, taken: set[int]) -> Row:
    """The row under an id that no other has."""
    name, copy = identity(row), 1
    while digest(name) in taken:
        copy += 1
        name = f"{identity(row)}#{copy}"
    taken.add(digest(name))
    return row if copy == 1 else {**row, "id": name}
