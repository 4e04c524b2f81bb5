"""Keep the first of rows that repeat each other, to the letter or nearly.

Rows are the same when their prompts are, white space and case aside, and their answers to the letter. They are nearly
the same when prompt and answers both share ``threshold`` of their pairs of neighbouring words (Jaccard), case and
punctuation aside; that is estimated by MinHash (Broder 1997) with 128 hashes, whose standard deviation is 0.035 at
0.8. Likeness is passed on: of A like B like C the first stays, whether or not A is like C. Of each row some 160 bytes
are kept, 300 where prompts and answers are compared.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.curation._parts import record
from grainline.curation._seam import Bench, Dropped, Row, Step
from grainline.data import repeats, sketch
from grainline.types import Record, spec

if TYPE_CHECKING:
    import numpy as np

HASHES = 128
CHUNK = 256  # rows sketched together


@spec
class Dedupe:
    whole: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()

    by: Literal["row", "prompt", "answers"] = "row"
    """What is compared: prompt and answers, the prompt alone (one row a prompt stays), the answers alone."""
    threshold: float = Field(0.8, ge=0.5, le=1)
    """Share of word pairs from which rows are nearly the same; 1 = only rows that are the same."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield self._all

    def _all(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        import numpy as np

        digests, sketches = self._read(rows)
        found = np.unique(np.frombuffer(digests, np.uint64), return_index=True)[1]
        same = np.ones(len(digests), dtype=bool)
        same[found] = False
        near = np.zeros(len(digests), dtype=bool)
        if self.threshold < 1:
            least = sketch.least(self.threshold, HASHES)
            near[[late for _, late in sketch.alike(*sketches, least=least)]] = True
        for row, again, nearly in zip(rows, same, near, strict=True):
            yield Dropped("repeats another") if again else Dropped("nearly repeats another") if nearly else [row]

    def _read(self, rows: Iterable[Row]) -> tuple[array[int], list[np.ndarray]]:
        """Of each row a digest, and sketches of what is compared."""
        import numpy as np

        digests = array("Q")
        parts: list[bytearray] = []
        rows = iter(rows)
        while chunk := [record(row) for row in itertools.islice(rows, CHUNK)]:
            digests.extend(map(self._digest, chunk))
            if self.threshold < 1:
                made = [sketch.sketches(texts, HASHES).tobytes() for texts in self._texts(chunk)]
                parts = parts or [bytearray() for _ in made]
                for part, more in zip(parts, made, strict=True):
                    part += more
        return digests, [np.frombuffer(part, np.uint8).reshape(-1, HASHES) for part in parts]

    def _digest(self, read: Record) -> int:
        prompt = str(repeats.prompt_digest(read)) if self.by != "answers" else ""
        return repeats.digest(prompt, *(answer.text for answer in read.answers if self.by != "prompt"))

    def _texts(self, chunk: Sequence[Record]) -> list[list[list[str]]]:
        """The words of what is compared, each part of all rows."""
        asked = [list(map(repeats.asked, chunk))] if self.by != "answers" else []
        return asked + ([list(map(repeats.said, chunk))] if self.by != "prompt" else [])
