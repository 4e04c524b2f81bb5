r"""Sentence by sentence, aspect by aspect: each piece of an answer speaks as its scores say.

The supervision of 2D-DPO (Li et al. 2024, arXiv:2410.19720, as read in secondary sources). The data's spans are used
as they are; text between them is cut into sentences, fenced code blocks stay whole. A segment's score combines the
aspects that judge it,

.. math:: r_k = \frac{\sum_a W_a\, s_{k,a}}{\sum_a W_a}, \qquad 0 \le s_{k,a} \le 1,

and is 1/2 where nobody judged (:data:`~grainline.types.NEUTRAL`). Where spans overlap, each stretch between two
borders is a segment; two judgements of one aspect are averaged. Tokens belong to the segment that most of their
characters stand in, and no annotated span is lost: one inside a single token takes that token.

For objectives that read segments (``2d-dpo``) this fills ``segment`` and ``score``. For all others it fills ``weight``:
r of a desirable answer, 1 - r of an undesirable one, so that good sentences of the one and faults of the other speak
loudest. (``1 - r`` is ours; the paper as reproduced has r on both sides: ``2d-dpo:rejected=score``.)
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from grainline.supervision._parts import sentences
from grainline.types import NEUTRAL, Answer, AnswerTokens, Example, Span, spec


class Segment(NamedTuple):
    """A piece of an answer and how good it is."""

    start: int  # characters, inclusive
    stop: int  # characters, exclusive
    score: float  # 0 to 1, aspects combined
    judged: bool  # by at least one span


@spec
class Segments:
    paper: ClassVar[str] = "arXiv:2410.19720"

    by: Literal["sentence", "answer"] = "sentence"
    """sentence = the data's spans, else sentences; answer = one segment: aspects without places, a 1D baseline."""
    weights: dict[str, float] = Field(default_factory=dict)
    """W: aspect -> weight, >= 0; aspects not named do not speak. Empty = all aspects alike."""
    normalise: Literal["none", "max", "mean"] = "none"
    """Scores and weights of an answer as they are (none), divided by their largest (max), or by their mean over the
    answer's tokens (mean: every answer speaks as loudly as in dpo, scores only say where)."""
    language: str = "en"
    """Of the sentences: a code such as en, de, ja (sentencex)."""

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if weights and (min(weights.values()) < 0 or not sum(weights.values()) > 0):
            raise ValueError("weights are at least 0, and one is above")
        return weights

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"spans", *(f"aspect {aspect}" for aspect, weight in self.weights.items() if weight)})

    def __call__(self, example: Example) -> Example:
        record = example.record
        desirable = (True, False) if record.is_pair else (bool(record.label),)
        marked = zip(record.answers, example.answers, desirable, strict=True)
        return example._replace(answers=tuple(self._mark(*one) for one in marked))

    def _mark(self, answer: Answer, tokens: AnswerTokens, desirable: bool) -> AnswerTokens:
        pieces = self.pieces(answer)
        place = _places(answer.text, tokens.offsets, pieces)
        present = sorted(set(place))  # a piece may have been cut away
        score = [pieces[i].score for i in present]
        segment = [present.index(i) for i in place]
        if self.by == "answer":
            score, segment = [sum(score[k] for k in segment) / len(segment)], [0] * len(segment)
        weight = [score[k] if desirable else 1 - score[k] for k in segment]
        return tokens._replace(
            weight=tuple(_divided(weight, self._level(weight))),
            segment=tuple(segment),
            score=tuple(_divided(score, self._level([score[k] for k in segment]))),
        )

    def pieces(self, answer: Answer) -> list[Segment]:
        """The answer's segments in order; together they are its text."""
        cuts = {0, len(answer.text), *(n for span in answer.spans for n in (span.start, span.stop))}
        if not _tile(answer.spans, len(answer.text)):
            cuts |= {
                n for n in sentences(answer.text, self.language) if not any(s.start < n < s.stop for s in answer.spans)
            }
        borders = sorted(cuts)
        pieces: list[Segment] = []
        for start, stop in itertools.pairwise(borders):
            here = [span for span in answer.spans if span.start <= start and stop <= span.stop]
            if pieces and not here and not answer.text[start:stop].strip():
                pieces[-1] = pieces[-1]._replace(stop=stop)
            else:
                pieces.append(Segment(start, stop, self._score(here), bool(here)))
        return pieces or [Segment(0, len(answer.text), NEUTRAL, False)]

    def _score(self, spans: Sequence[Span]) -> float:
        aspects: dict[str, list[float]] = {}
        for span in spans:
            aspects.setdefault(span.aspect, []).append(span.score)
        weights: Mapping[str, float] = self.weights or dict.fromkeys(aspects, 1.0)
        total = sum(weights.get(aspect, 0.0) for aspect in aspects)
        if not total:
            return NEUTRAL
        return sum(weights.get(aspect, 0.0) * sum(s) / len(s) for aspect, s in aspects.items()) / total

    def _level(self, per_token: Sequence[float]) -> float:
        """What the answer's numbers are divided by."""
        if self.normalise == "none":
            return 1.0
        return max(per_token) if self.normalise == "max" else sum(per_token) / len(per_token)


def _places(text: str, offsets: Sequence[tuple[int, int]], pieces: Sequence[Segment]) -> list[int]:
    """For each token the piece that most of its letters stand in, or, without text (end of turn), the piece before."""
    starts = [piece.start for piece in pieces]

    def letters(token: tuple[int, int], i: int) -> int:
        piece = text[max(token[0], pieces[i].start) : min(token[1], pieces[i].stop)]
        return len("".join(piece.split()))

    place: list[int] = []
    for token in offsets:
        if token[0] >= token[1]:
            place.append(place[-1] if place else 0)
            continue
        first, last = (bisect.bisect_right(starts, n) - 1 for n in (token[0], token[1] - 1))
        place.append(max(range(first, last + 1), key=lambda i: letters(token, i)))
    for i, piece in enumerate(pieces):
        if piece.judged and i not in place:
            shared = [min(b, piece.stop) - max(a, piece.start) for a, b in offsets]
            if shared and max(shared) > 0:
                place[shared.index(max(shared))] = i
    return place


def _tile(spans: Sequence[Span], length: int) -> bool:
    """Whether spans cover a text from end to end."""
    covered = 0
    for span in sorted(spans):
        if span.start > covered:
            return False
        covered = max(covered, span.stop)
    return covered >= length


def _divided(values: Sequence[float], by: float) -> list[float]:
    return [value / by for value in values] if by else list(values)
