"""FineGrainedRLHF's qa_feedback (allenai): an answer from passages, its errors marked and typed by people, and mended.

Native columns: ``question``; ``passages``, lists of a title and then sentences; ``"prediction 1"`` to
``"prediction 4"``; ``feedback`` on the first of them: ``errors`` (``start``, ``end`` in characters, ``"error type"``),
``missing-info`` and ``corrected-prediction``; ``preference``, six comparisons.

* A row becomes a pair: the corrected prediction against prediction 1 with its errors as spans without a score, which
  is 0. Their aspects are those of the paper's first two reward models: "relevance" for Irrelevant, Redundant and
  Incoherent, "factuality" for Wrong-Grounding and Unverifiable. What was missing has no place in the text and makes no
  span.
* Answers that needed no correction, or of which nothing was left, are counted and make no pair. ``preference`` and the
  other predictions are not read.

Confirmed on the repository's ``dev_feedback.json`` (500 rows).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from grainline.data import fields, files
from grainline.data.formats import _seam
from grainline.errors import DataError, nearest

SIGNATURE = frozenset({"question", "passages", "prediction 1", "feedback"})

ASPECTS = {
    "Irrelevant": "relevance",
    "Redundant": "relevance",
    "Incoherent": "relevance",
    "Wrong-Grounding": "factuality",
    "Unverifiable": "factuality",
}
"""Error type -> aspect."""


def rows(rows: Iterable[files.Row]) -> Iterator[files.Row]:
    """One pair for each answer that was corrected."""
    return _seam.each(rows, _pair)


def _pair(row: Mapping[str, Any], where: str) -> Mapping[str, Any] | _seam.Skipped:
    rejected = _seam.text(row, "prediction 1", where=where)
    feedback = _seam.mapping(row.get("feedback"), where=f"{where} feedback")
    corrected = feedback.get("corrected-prediction")
    if not isinstance(corrected, str):
        raise DataError(f"{fields.show(corrected)} is not text.", where=f"{where} feedback corrected-prediction")
    prompt, spans = _prompt(row, where=where), _spans(feedback, where=f"{where} feedback")
    chosen = corrected.strip()
    if not chosen:
        return _seam.Skipped("answers of which nothing was left")
    if chosen == rejected.strip():
        return _seam.Skipped("answers that needed no correction")
    missing = _seam.listed(feedback, "missing-info", where=f"{where} feedback")
    return {
        "prompt": _seam.asked(prompt),
        "chosen": chosen,
        "rejected": rejected,
        "rejected_spans": spans,
        "missing_info": [_seam.mapping(one, where=f"{where} feedback").get("error type") for one in missing],
    }


def _prompt(row: Mapping[str, Any], *, where: str) -> str:
    """Passages, then the question: what is cut to fit ``max_length`` is the beginning."""
    passages = []
    for number, passage in enumerate(_seam.listed(row, "passages", where=where)):
        if not fields.is_list(passage) or not all(isinstance(sentence, str) for sentence in passage):
            raise DataError("the passage is not a title and sentences.", where=f"{where} passages[{number}]")
        passages.append("\n".join(passage[1:]))  # the first sentence repeats the title where the article begins
    question = _seam.text(row, "question", where=where)
    return "\n\n".join(["Answer the question from the passages.", *passages, f"Question: {question}"])


def _spans(feedback: Mapping[str, Any], *, where: str) -> list[dict[str, Any]]:
    found = []
    for number, error in enumerate(_seam.listed(feedback, "errors", where=where)):
        place = f"{where} errors[{number}]"
        given = _seam.mapping(error, where=place)
        kind = _seam.text(given, "error type", where=place)
        if kind not in ASPECTS:
            raise DataError(f"unknown error type {kind!r}.", where=place, instead=nearest(kind, ASPECTS))
        span = {"start": given.get("start"), "end": given.get("end"), "type": kind, "aspect": ASPECTS[kind]}
        if not all(isinstance(span[side], int) for side in ("start", "end")):
            raise DataError("start and end must be whole numbers of characters.", where=place)
        found.append(span)
    return sorted(found, key=lambda span: (span["start"], span["end"]))
