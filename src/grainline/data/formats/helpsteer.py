"""HelpSteer and HelpSteer2 (nvidia): one answer a row, five human ratings from 0 to 4.

Native columns: ``prompt``, ``response``, ``helpfulness``, ``correctness``, ``coherence``, ``complexity``,
``verbosity``. Adjacent rows of one prompt make a pair, the best answer against the worst by helpfulness + correctness;
answers between them, ties and an answer that stands alone make none and are counted.

* These two decide because they say how good an answer is, as sablo/HelpSteer_binarized takes them; helpfulness alone,
  which HelpSteer2's card suggests, ties more often. ``margin`` is the difference of their mean, on the scale of 0 to 4.
* Spans over the whole answer hold helpfulness, correctness and coherence, under ``score_range`` [0, 4]. Complexity and
  verbosity say what an answer is like, not how good it is (NVIDIA's own reward for HelpSteer2 weighs verbosity
  negatively), and a span's score means "higher is better": they are left out.
* HelpSteer2's conversations, ``turn\\n<extra_id_1>Assistant\\nturn\\n<extra_id_1>User\\nturn``, become chat turns.

Confirmed from the cards: the columns, HelpSteer2's adjacent rows and its conversations. Not confirmed: that all rows of
a prompt are adjacent in the first HelpSteer; where they are not, the count of answers that stand alone tells.
HelpSteer2's ``preference/`` files have other columns and are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from grainline.data import files
from grainline.data.formats import _seam
from grainline.errors import DataError

SIGNATURE = frozenset({"prompt", "response", "helpfulness", "correctness"})

SCALE = [0, 4]
BY = ("helpfulness", "correctness")
"""Whose sum decides which answer is the better one."""
ASPECTS = ("helpfulness", "correctness", "coherence")
"""What becomes spans: the attributes of which more is better."""

_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


class _Rated(NamedTuple):
    where: str
    id: str
    prompt: str
    answer: str
    scores: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.scores[aspect] for aspect in BY)


def rows(rows: Iterable[files.Row]) -> Iterator[files.Row]:
    """One pair for each run of rows with the same prompt."""
    group: list[_Rated] = []
    for row in rows:
        try:
            rated = _rated(row)
        except DataError as problem:
            yield row._replace(row=problem)
            continue
        if group and group[0].prompt != rated.prompt:
            yield from _pair(group)
            group = []
        group.append(rated)
    if group:
        yield from _pair(group)


def _rated(row: files.Row) -> _Rated:
    given = _seam.mapping(row.row, where=row.where)
    prompt, answer = (_seam.text(given, column, where=row.where) for column in ("prompt", "response"))
    scores = {aspect: _seam.score(given, aspect, scale=SCALE, where=row.where) for aspect in ASPECTS}
    return _Rated(row.where, row.id, prompt, answer, scores)


def _pair(group: Sequence[_Rated]) -> Iterator[files.Row]:
    best, worst = max(group, key=lambda one: one.total), min(group, key=lambda one: one.total)
    paired = best.total > worst.total and best.answer != worst.answer
    if paired:
        first = min((best, worst), key=group.index)
        yield files.Row(first.where, first.id, _row(best, worst))
    why = "answers between best and worst" if paired else "ties" if len(group) > 1 else "answers that stand alone"
    for one in group:
        if not paired or (one is not best and one is not worst):
            yield files.Row(one.where, one.id, _seam.Skipped(why))


def _row(best: _Rated, worst: _Rated) -> dict[str, Any]:
    return {
        "prompt": _turns(best.prompt),
        "chosen": best.answer,
        "rejected": worst.answer,
        "margin": (best.total - worst.total) / len(BY),
        "chosen_spans": _seam.whole(best.answer, best.scores),
        "rejected_spans": _seam.whole(worst.answer, worst.scores),
        "score_range": SCALE,
    }


def _turns(prompt: str) -> list[dict[str, str]]:
    first, *others = _TURN.split(prompt)
    said = zip(others[::2], others[1::2], strict=True)
    return [*_seam.asked(first), *({"role": role.lower(), "content": content} for role, content in said)]
