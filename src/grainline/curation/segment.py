"""Cut answers into pieces that a reward can judge: sentences, and fenced code blocks whole.

Pieces tile each answer: together, in order, they are its text, and white space goes with what stands before it. They
are written as ``[start, end]`` in characters of the answer into the columns ``chosen_segments``, ``rejected_segments``
or ``completion_segments``, where ``score`` finds them and :mod:`grainline.data.columns` reads them; in a row of
several answers into each answer's own ``segments``. Pieces that a row has already are left as they are, for scores
may belong to them.

Sentences are cut by sentencex (Wikimedia, MIT), the same way as the supervision ``segments`` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field

from grainline.curation._parts import answers, record
from grainline.curation._seam import Bench, Row, Step, identity, signed
from grainline.data import fields
from grainline.data.row_checks import sides
from grainline.data.sentences import sentences
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import spec


@spec
class Segment:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    language: str = Field("en", pattern="^[a-z]{2,3}(-[A-Za-z]+)*$")
    """Of the sentences: a code such as en, de, ja (sentencex; one that it does not know is cut by common rules)."""
    language_column: str = ""
    """Column that holds the code of each row's own language; rows without it are in ``language``."""
    shortest: int = Field(1, ge=1)
    """Characters, white space around them aside: a shorter piece joins the one before it (the first, the next one)."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield self._each

    def _each(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        for row in rows:
            made = self._row(row)
            yield [row if made == row else signed(made, written(self))]

    def _row(self, row: Row) -> dict[str, Any]:
        language = self._language(row)
        if row.get("answers") is not None:
            found = [{"segments": self.pieces(a["text"], language), **a} for a in answers(row)]
            return {**row, "answers": found}
        read = record(row)
        if isinstance(read.prompt, str) and row.get("prompt") is None:
            raise DataError(
                "segments count from an explicit prompt.",
                where=f"{identity(row)} prompt",
                instead="Put the step convert before this one: it writes the prompt out.",
            )
        made = dict(row)
        for name, answer in zip(sides(read), read.answers, strict=True):
            if not answer.messages and not row.get(f"{name}_segments"):  # several turns are no one text to cut
                made[f"{name}_segments"] = self.pieces(answer.text, language)
        return made

    def _language(self, row: Row) -> str:
        said = row.get(self.language_column) if self.language_column else None
        if said is None:
            return self.language
        return fields.text(said, where=f"{identity(row)} {self.language_column}")

    def pieces(self, text: str, language: str) -> list[list[int]]:
        """[start, end] of each piece of ``text``."""
        found: list[list[int]] = []
        for start, stop in itertools.pairwise(sentences(text, language)):
            short = len(text[start:stop].strip()) < self.shortest
            if found and (short or len(text[found[-1][0] : found[-1][1]].strip()) < self.shortest):
                found[-1][1] = stop
            else:
                found.append([start, stop])
        return found
