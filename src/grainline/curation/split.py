"""Part rows into train, test and validation by their prompts: no prompt stands on two sides.

Each prompt (white space and case aside) has a number drawn from the seed and its words alone; the lowest tenth is the
test set of ``test=0.1``. So the parts are the same in whatever order the rows stand, their sizes are exact in prompts,
and a prompt hardly ever changes sides when rows are added. The part is written into the column ``split``; an OUT that
is a folder gets one file for each.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from pydantic import Field, model_validator

from grainline.curation._parts import record
from grainline.curation._seam import Bench, Row, Step, signed
from grainline.data.repeats import digest, prompt_digest
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import spec


@spec
class Split:
    whole: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()

    test: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts that goes to the test set."""
    validation: float = Field(0.0, ge=0, lt=1)
    """Share of the prompts that goes to the validation set."""

    @model_validator(mode="after")
    def _leave_some(self) -> Split:
        if not self.test + self.validation < 1:
            raise ValueError("test and validation leave nothing to train on")
        return self

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield lambda rows: self._all(rows, str(bench.seed))

    def _all(self, rows: Iterable[Row], seed: str) -> Iterator[list[Row]]:
        import numpy as np

        numbers = array("Q", (digest(seed, str(prompt_digest(record(row)))) for row in rows))
        prompts = np.unique(np.frombuffer(numbers, np.uint64))  # sorted
        test, validation = (math.floor(share * len(prompts) + 0.5) for share in (self.test, self.validation))
        for name, share, count in (("test", self.test, test), ("validation", self.validation, validation)):
            if share and not count:
                raise DataError(f"{len(prompts)} prompts are too few for a {name} set of {share:g}.")
        if test + validation == len(prompts):
            raise DataError(f"{len(prompts)} prompts are too few to be parted so.")
        for row, number in zip(rows, numbers, strict=True):
            at = int(np.searchsorted(prompts, number))
            part = "test" if at < test else "validation" if at < test + validation else "train"
            yield [signed({**row, "split": part}, written(self))]
