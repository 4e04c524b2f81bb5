"""PRM800K (OpenAI): a solution of a MATH problem a row, each step rated by a person: 1 good, 0 neutral, -1 wrong.

Native columns: ``question`` with ``problem``, and ``label`` with ``finish_reason`` and ``steps``, a list of
``{completions: [{text, rating}], chosen_completion, human_completion}``.

* A row becomes one labelled answer: the steps that were followed (the chosen completion, else the step that the labeler
  wrote, which counts as good), joined by newlines, each a span "correctness" with its rating under ``score_range``
  [-1, 1]. A step that was not rated has no span. The answer is desirable if it reached the solution and no step is
  wrong; a neutral step does no harm (TRL's conversion calls it wrong).
* Where the labeler stopped at an error, nothing is chosen: the solution's own next step, the first of the completions,
  ends the answer.
* Candidates that were not followed are left out: TRL makes a row of each, but a policy that imitates a prefix learns to
  stop in the middle.
* Rows that the labeler gave up, or whose problem was broken, have no verdict: they are counted and make no row.

The shape is confirmed from the repository's README, and from code that reads it that ``human_completion`` is an object
with a ``text`` (a plain text is read too) and that ``completions`` can be null. The files themselves (Git LFS) were not
at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from grainline.data import fields, files
from grainline.data.formats import _seam
from grainline.errors import DataError

SIGNATURE = frozenset({"question", "label", "labeler"})

SCALE = [-1, 1]


class _Step(NamedTuple):
    text: str
    rating: float | None
    goes_on: bool  # whether the solution was followed from here


def rows(rows: Iterable[files.Row]) -> Iterator[files.Row]:
    """One labelled answer for each solution that has a verdict."""
    return _seam.each(rows, _solution)


def _solution(row: Mapping[str, Any], where: str) -> Mapping[str, Any] | _seam.Skipped:
    question = _seam.mapping(row.get("question"), where=f"{where} question")
    label = _seam.mapping(row.get("label"), where=f"{where} label")
    problem = _seam.text(question, "problem", where=f"{where} question")
    steps = _followed(label, where=f"{where} label")
    finish = label.get("finish_reason", "solution")
    if finish not in ("solution", "found_error") or not steps:
        return _seam.Skipped("solutions without a verdict")
    return {
        "prompt": _seam.asked(problem),
        "completion": "\n".join(step.text for step in steps),
        "completion_spans": _spans(steps),
        "score_range": SCALE,
        "label": finish == "solution" and all(step.rating is None or step.rating >= 0 for step in steps),
    }


def _followed(label: Mapping[str, Any], *, where: str) -> list[_Step]:
    found: list[_Step] = []
    for number, step in enumerate(_seam.listed(label, "steps", where=where)):
        taken = _taken(step, where=f"{where} steps[{number}]")
        if taken is not None:
            found.append(taken)
        if taken is None or not taken.goes_on:
            break
    return found


def _taken(step: Any, *, where: str) -> _Step | None:
    given = _seam.mapping(step, where=where)
    candidates = () if given.get("completions") is None else _seam.listed(given, "completions", where=where)
    chosen, human = given.get("chosen_completion"), given.get("human_completion")
    if chosen is None and human is not None:
        human = {"text": human} if isinstance(human, str) else _seam.mapping(human, where=f"{where} human_completion")
        return _Step(_seam.text(human, "text", where=f"{where} human_completion"), 1.0, goes_on=True)
    if chosen is None and not candidates:
        return None
    number = 0 if chosen is None else chosen
    if not isinstance(number, int) or not 0 <= number < len(candidates):
        raise DataError(
            f"{fields.show(chosen)} is none of the {len(candidates)} completions.", where=f"{where} chosen_completion"
        )
    where = f"{where} completions[{number}]"
    candidate = _seam.mapping(candidates[number], where=where)
    unrated = candidate.get("rating") is None
    rating = None if unrated else _seam.score(candidate, "rating", scale=SCALE, where=where)
    return _Step(_seam.text(candidate, "text", where=where), rating, goes_on=chosen is not None)


def _spans(steps: Iterable[_Step]) -> list[dict[str, Any]]:
    spans, start = [], 0
    for step in steps:
        end = start + len(step.text)
        if step.rating is not None:
            spans.append({"start": start, "end": end, "aspect": "correctness", "score": step.rating})
        start = end + 1
    return spans
