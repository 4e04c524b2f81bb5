"""Rows in, the same rows with scores out: a reward at work on a file, ready to be trained on.

A score job is a job of curation (``curate.py``), and has all its promises: streamed, carried on after any interruption
with the same bytes, provenance beside the file. Its steps are

===========  =======================================================================================================
convert      prompts are written out, so that places in an answer can be counted
unmark       what the rows said of parts of their answers goes, if ``replace``; else such rows are refused, for two
             voices in one column could not be told apart
segment      sentences, where ``by`` is sentence
score        ``chosen_score``, ``chosen_uncertainty`` where the reward knows it, ``chosen_segments`` and
             ``chosen_aspect_scores`` (``rejected_``, ``completion_``), ``aspect_names``
===========  =======================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from grainline import curate, rooms
from grainline.curation._seam import Bench, Row, Step, identity, signed
from grainline.data.fields import FINE
from grainline.errors import DataError
from grainline.types import spec

name = "unmark"
"""What the step of this file is called in the provenance of a job."""
MARKS = (*(f"{side}_{kind}" for side in ("chosen", "rejected", "completion") for kind in FINE), "aspect_names")


def score(
    source: Any,
    reward: Any,
    out: str | Path,
    *,
    aspects: Sequence[str] = (),
    by: Literal["sentence", "answer"] = "sentence",
    between: tuple[float, float] | None = None,
    language: str = "en",
    replace: bool = False,
    seed: int = 0,
    split: str = "train",
    format: str = "",
    limit: int | None = None,
    skip_bad_rows: bool = False,
    quiet: bool = True,
) -> curate.Curated:
    """Score every answer of ``source`` into ``out``.

    >>> score("pairs.jsonl", "head:path=heads/house", "scored.jsonl", aspects=["correctness"])

    Args:
        source: path, hub id, ``datasets.Dataset`` or list of dicts.
        reward: a method of ``rewards/``, as text or value; a list is a jury.
        aspects: what is judged; empty = the answer all in all.
        by: pieces that are judged; answer gives numbers alone.
        between: worst and best score of a reward that has no bounds of its own.
        replace: drop what the rows say of parts of their answers.

    Raises:
        SpecError: no such reward, or an aspect that it does not know.
        DataError: rows that cannot be read, or that are marked already.
        RunError: ``out`` is there, or another unfinished job is.
    """
    scoring = {"name": "score", "reward": reward, "aspects": list(aspects), "between": between}
    cut: list[Any] = [{"name": "segment", "language": language}] if by == "sentence" else []
    pieces = {"pieces": "segments" if by == "sentence" else "answer"}
    steps = ["convert", Unmark(replace=replace), *cut, rooms.resolve("curation", scoring | pieces)]
    return curate.curate(
        source, steps, out, seed=seed, split=split, format=format, limit=limit, skip_bad_rows=skip_bad_rows, quiet=quiet
    )


@spec
class Unmark:
    """The step that makes room for scores."""

    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    replace: bool = False
    """Drop what rows say of parts of their answers; else refuse such rows."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield self._each

    def _each(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        for row in rows:
            marked = [column for column in MARKS if row.get(column) is not None]
            if marked and not self.replace:
                raise DataError(
                    "parts of the answer are judged already.",
                    where=f"{identity(row)} {marked[0]}",
                    instead="Write to rows without such columns, or let the scores replace them: --replace.",
                )
            gone = {*MARKS, "score_range"}  # a scale of the old marks; the new ones lie between 0 and 1
            kept = {column: value for column, value in row.items() if column not in gone}
            yield [signed(kept, rooms.text(self), gone=marked) if marked else row]
