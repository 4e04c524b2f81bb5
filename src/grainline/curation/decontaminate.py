"""Leave out rows whose prompt stands in a test set, whole or in good part.

Prompts are compared word by word, case and punctuation aside, in runs of ``size`` words. Of a test prompt's runs the
share that stands in a row's prompt is its coverage; with ``by=jaccard``, the runs they share over the runs that either
has. From ``share`` on the row is dropped. A prompt of fewer words than ``size`` is one run. Every test prompt is
compared exactly, by an index of its runs.

Runs of 13 words are GPT-3's rule (Brown et al. 2020, appendix C), eight words and half of the prompt that of Tulu 3
(Lambert et al. 2024) [secondary].
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

from pydantic import Field

from grainline.curation._parts import record
from grainline.curation._seam import Bench, Dropped, Row, Step
from grainline.data import chat, load
from grainline.data.repeats import digest
from grainline.data.sketch import words
from grainline.errors import DataError, SpecError
from grainline.types import Record, spec


@spec
class Decontaminate:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    against: str = ""
    """The test set: file, folder, hub id."""
    split: str = "test"
    """Split of a hub id or folder."""
    format: str = ""
    """Public data set whose own columns the test set has; empty = ours and TRL's."""
    by: Literal["coverage", "jaccard"] = "coverage"
    """coverage = how much of the test prompt stands in the row's; jaccard = how alike the two are as a whole."""
    size: int = Field(8, ge=1)
    """Words of a run."""
    share: float = Field(0.5, gt=0, le=1)
    """Least coverage, or likeness, for which a row is dropped; near 0 = a single run in common is enough."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.against,) if self.against else ()

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        if not self.against:
            raise SpecError("which test set?", where="decontaminate", instead="Write decontaminate:against=PATH.")
        index = _Index(self._tests(), self.size)
        yield lambda rows: self._each(rows, index)

    def _tests(self) -> Iterator[Record]:
        _, rows = load.stream(self.against, split=self.split, format=self.format)
        for row in rows:
            if isinstance(row, DataError):
                raise row
            if isinstance(row, Record):
                yield row

    def _each(self, rows: Iterable[Row], index: _Index) -> Iterator[Sequence[Row]]:
        for row in rows:
            near = index.nearest(record(row), jaccard=self.by == "jaccard") >= self.share
            yield Dropped("the prompt is in the test set") if near else [row]


class _Index:
    """Which test prompts have which runs of words."""

    def __init__(self, tests: Iterable[Record], size: int) -> None:
        self._size = size
        self._has: dict[int, array[int]] = {}
        self._runs = array("I")  # of each test prompt, how many different ones
        seen: set[frozenset[int]] = set()
        for test in tests:
            runs = self._of(test)
            if runs not in seen:
                seen.add(runs)
                for run in runs:
                    self._has.setdefault(run, array("I")).append(len(self._runs))
                self._runs.append(len(runs))

    def _of(self, read: Record) -> frozenset[int]:
        said = words(chat.spoken(read.prompt))
        ends = range(max(1, len(said) - self._size + 1))
        return frozenset(digest(*said[start : start + self._size]) for start in ends)

    def nearest(self, read: Record, *, jaccard: bool) -> float:
        """Coverage, or likeness, of the test prompt that is nearest."""
        runs = self._of(read)
        shared = Counter(test for run in runs for test in self._has.get(run, ()))
        either = len(runs) if jaccard else 0
        return max((n / (self._runs[t] + (either - n if jaccard else 0)) for t, n in shared.items()), default=0.0)
