"""What a record's spans say of each piece of an answer: the lessons of a reward, and what it is measured by.

Pieces are the data's own where its spans cover an answer from end to end, else sentences. A piece is, in each aspect,
as good as the worst of the spans that touch it: a sentence with one marked error is wrong. White space touches nothing.

Text that no span touches is not judged, unless the data only ever marks errors. Then silence speaks, and how far is
the reader's to say:

============  ======================================================================================================
``unjudged``  nowhere
``marked``    in an answer that carries a mark of any aspect: somebody has read it, and what was left alone is right
``right``     in every answer: those without a mark are without error (a corrected answer beside the faulty one)
============  ======================================================================================================
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from grainline.data.sentences import sentences
from grainline.types import Answer, Record, Span

Unmarked = Literal["unjudged", "marked", "right"]


class Judged(NamedTuple):
    """An answer in its place, in pieces, and how good each is in each aspect."""

    prompt: Any  # as in a Record
    answer: str
    pieces: tuple[tuple[int, int], ...]  # [start, stop) in characters
    right: tuple[tuple[float, ...], ...]  # (S, A) from 0, wrong, to 1, right; NaN where nobody judged
    weight: float = 1.0

    @property
    def group(self) -> str:
        """The prompt, by which rows belong together."""
        return repr(self.prompt)


def aspects(records: Iterable[Record]) -> tuple[str, ...]:
    """Every aspect that some span judges, sorted."""
    return tuple(sorted({span.aspect for record in records for answer in record.answers for span in answer.spans}))


def silence(records: Iterable[Record]) -> Unmarked:
    """What text without a span means in these data: ``marked`` where all spans are errors, else ``unjudged``."""
    scores = {span.score for record in records for answer in record.answers for span in answer.spans}
    return "marked" if scores == {0.0} else "unjudged"


def by_pieces(
    records: Iterable[Record], wanted: Sequence[str], *, unmarked: Unmarked = "unjudged", language: str = "en"
) -> list[Judged]:
    """Every answer of which something is judged in the ``wanted`` aspects."""
    found = []
    for record in records:
        for answer in record.answers:
            places = pieces(answer, language)
            speaks = unmarked == "right" or (unmarked == "marked" and bool(answer.spans))
            silent = 1.0 if speaks else math.nan
            right = tuple(tuple(_worst(answer, place, aspect, silent) for aspect in wanted) for place in places)
            if any(not math.isnan(mark) for marks in right for mark in marks):
                found.append(Judged(record.prompt, answer.text, places, right, record.weight))
    return found


def as_wholes(records: Iterable[Record]) -> list[Judged]:
    """Every answer as one piece: of a pair the chosen one is right, the rejected one wrong; else its label says."""
    found = []
    for record in records:
        marks = (1.0, 0.0) if record.is_pair else (float(bool(record.label)),)
        for answer, right in zip(record.answers, marks, strict=True):
            found.append(Judged(record.prompt, answer.text, ((0, len(answer.text)),), ((right,),), record.weight))
    return found


def pieces(answer: Answer, language: str = "en") -> tuple[tuple[int, int], ...]:
    """The stretches between the borders of spans that tile the answer, else its sentences."""
    if _tile(answer.spans, answer.text):
        cuts = sorted({0, len(answer.text), *(n for span in answer.spans for n in (span.start, span.stop))})
    else:
        cuts = list(sentences(answer.text, language))
    return tuple((a, b) for a, b in itertools.pairwise(cuts) if answer.text[a:b].strip())


def _worst(answer: Answer, place: tuple[int, int], aspect: str, silent: float) -> float:
    def touches(span: Span) -> bool:
        return bool(answer.text[max(span.start, place[0]) : min(span.stop, place[1])].strip())

    scores = [span.score for span in answer.spans if span.aspect == aspect and touches(span)]
    return min(scores, default=silent)


def _tile(spans: Sequence[Span], text: str) -> bool:
    """Whether spans cover a text from end to end, but for white space."""
    covered = 0
    for span in sorted(spans):
        if text[covered : span.start].strip():
            return False
        covered = max(covered, span.stop)
    return bool(spans) and not text[covered:].strip()
