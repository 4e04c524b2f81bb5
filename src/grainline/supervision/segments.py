r"""Sentence by sentence, aspect by aspect: each piece of an answer speaks as its scores say.

The supervision of 2D-DPO (Li et al. 2024, arXiv:2410.19720, as read in secondary sources). The data's spans are used
as they are; text between them is cut into sentences, fenced code blocks stay whole. A segment's score combines the
aspects that judge it,

.. math:: r_k = \frac{\sum_a W_a\, s_{k,a}}{\sum_a W_a}, \qquad 0 \le s_{k,a} \le 1,

and is 1/2 where nobody judged (:data:`~grainline.types.NEUTRAL`). Where spans overlap, each stretch between two
borders is a segment; two judgements of one aspect are averaged. Tokens belong to the segment that most of their
letters stand in; an annotated span inside a single token takes that token (of several inside one token, one does).

For objectives that read segments (``2d-dpo``) this fills ``segment`` and ``score``. For all others it fills ``weight``:
r of a desirable answer, 1 - r of an undesirable one, so that good sentences of the one and faults of the other speak
loudest. (``1 - r`` is ours; the paper as reproduced has r on both sides: ``2d-dpo:rejected=score``.)
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from grainline.data.sentences import sentences
from grainline.errors import DataError
from grainline.supervision._parts import unplaced
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
    normalise: Literal["none", "mean"] = "none"
    """Scores and weights of an answer as they are (none), or divided by their mean over its tokens (mean: the answer
    speaks as loudly as in dpo, scores only say where; one whose numbers are all 0 stays silent)."""
    language: str = Field("en", pattern="^[a-z]{2,3}(-[A-Za-z]+)*$")
    """Of the sentences: a code such as en, de, ja (sentencex; one that it does not know is cut by common rules)."""

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
        marked = list(zip(record.answers, example.answers, desirable, strict=True))
        if any(answer.spans and unplaced(tokens) for answer, tokens, _ in marked):
            raise DataError(
                "the chat template rewrote an answer, so its spans have no place among the tokens.",
                where=record.where,
                instead="Remove the row, or choose supervision=sequence.",
            )
        return example._replace(answers=tuple(self._mark(*one) for one in marked))

    def _mark(self, answer: Answer, tokens: AnswerTokens, desirable: bool) -> AnswerTokens:
        pieces = self.pieces(answer)
        if unplaced(tokens):  # an answer of several turns: nobody judged its parts
            pieces = [Segment(0, len(answer.text), NEUTRAL, False)]
        place = _places(answer.text, tokens.offsets, pieces)
        present = {i: k for k, i in enumerate(sorted(set(place)))}  # a piece may have been cut away
        score = [pieces[i].score for i in present]
        segment = [present[i] for i in place]
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
            elif pieces and not pieces[-1].judged and not answer.text[: pieces[-1].stop].strip():  # blank so far
                pieces[-1] = Segment(0, stop, self._score(here), bool(here))
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
        return sum(per_token) / len(per_token) if self.normalise == "mean" else 1.0


def _places(text: str, offsets: Sequence[tuple[int, int]], pieces: Sequence[Segment]) -> list[int]:
    """For each token the piece that most of its letters stand in, or, without text (end of turn), the piece before."""
    starts = [piece.start for piece in pieces]

    def letters(token: tuple[int, int], i: int) -> int:
        piece = text[max(token[0], pieces[i].start) : min(token[1], pieces[i].stop)]
        return len("".join(piece.split()))

    place: dict[int, int] = {}
    for t, token in enumerate(offsets):
        if token[0] < token[1]:
            first, last = (bisect.bisect_right(starts, n) - 1 for n in (token[0], token[1] - 1))
            place[t] = max(range(first, last + 1), key=lambda i: letters(token, i))
    held = Counter(place.values())
    for i, piece in enumerate(pieces):
        if piece.judged and not held[i]:
            shared = {t: min(offsets[t][1], piece.stop) - max(offsets[t][0], piece.start) for t in place}
            # No judged piece gives its only token away: of several spans inside one token, one is heard.
            free = [t for t in place if shared[t] > 0 and (held[place[t]] > 1 or not pieces[place[t]].judged)]
            if free:
                t = max(free, key=lambda t: shared[t])
                held.subtract([place[t]])
                held[i], place[t] = 1, i
    found: list[int] = []
    for t in range(len(offsets)):
        found.append(place.get(t, found[-1] if found else 0))
    return found


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
