"""UltraFeedback (openbmb): four answers a row, each rated by GPT-4 from 1 to 5 for four aspects.

Native columns: ``instruction`` and ``completions``, a list of ``{response, annotations: {instruction_following,
honesty, truthfulness, helpfulness: {Rating}}, overall_score, "fine-grained_score", ...}``. A rating is the text of a
number, or "N/A".

* ``chosen`` is the answer with the highest mean of the four ratings, ``rejected`` one of those below it, as Argilla's
  binarized sets choose. Not by ``overall_score`` (as HuggingFaceH4's do): it is a second judgement, which the published
  set had to mend for 2628 answers, and it does not follow from the aspects that become our spans. The rejected one is
  drawn by the prompt's sha256, so a row gives the same pair wherever it stands.
* Spans over the whole answer hold the four ratings, under ``score_range`` [1, 5]; ``margin`` is the difference of the
  means. An answer that is empty, or of which an aspect is not rated, takes no part. Where nothing can be compared, or
  all are equal, the row is counted and makes no pair.

The shape is confirmed from the authors' repository. The system prompt under which an answer was written
(``custom_system_prompt``) is left out, as in the binarized sets. Rows whose ``source`` is truthful_qa are taken like
the others: drop them before you report TruthfulQA.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from grainline.data import fields, files
from grainline.data.formats import _seam
from grainline.errors import DataError

SIGNATURE = frozenset({"instruction", "completions"})

SCALE = [1, 5]
ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


class _Rated(NamedTuple):
    answer: str
    scores: dict[str, float]

    @property
    def mean(self) -> float:
        return sum(self.scores.values()) / len(ASPECTS)


def rows(rows: Iterable[files.Row]) -> Iterator[files.Row]:
    """One pair for each instruction."""
    return _seam.each(rows, _pair)


def _pair(row: Mapping[str, Any], where: str) -> Mapping[str, Any] | _seam.Skipped:
    prompt = _seam.text(row, "instruction", where=where)
    every = enumerate(_seam.listed(row, "completions", where=where))
    tried = [_rated(completion, where=f"{where} completions[{number}]") for number, completion in every]
    rated = [one for one in tried if one is not None]
    if len(rated) < 2:
        return _seam.Skipped("rows with fewer than two answers that are rated in full")
    best = max(rated, key=lambda one: one.mean)
    below = [one for one in rated if one.mean < best.mean and one.answer != best.answer]
    if not below:
        return _seam.Skipped("ties")
    other = below[int(hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest(), 16) % len(below)]
    return {
        "prompt": _seam.asked(prompt),
        "chosen": best.answer,
        "rejected": other.answer,
        "margin": best.mean - other.mean,
        "chosen_spans": _seam.whole(best.answer, best.scores),
        "rejected_spans": _seam.whole(other.answer, other.scores),
        "score_range": SCALE,
    }


def _rated(completion: Any, *, where: str) -> _Rated | None:
    given = _seam.mapping(completion, where=where)
    answer = given.get("response")
    if not isinstance(answer, str):
        raise DataError(f"{fields.show(answer)} is not text.", where=f"{where} response")
    judged = _seam.mapping(given.get("annotations") or {}, where=f"{where} annotations")
    found = {aspect: _rating(judged.get(aspect), where=f"{where} {aspect}") for aspect in ASPECTS}
    scores = {aspect: score for aspect, score in found.items() if score is not None}
    return _Rated(answer, scores) if answer.strip() and len(scores) == len(ASPECTS) else None


def _rating(judgement: Any, *, where: str) -> float | None:
    value = _seam.mapping(judgement or {}, where=where).get("Rating")
    if value in (None, "N/A"):
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise DataError(
            f"{fields.show(value)} is no rating.", where=where, instead='Write "1" to "5", or N/A.'
        ) from None
    return _seam.score({"Rating": value}, "Rating", scale=SCALE, where=where)
