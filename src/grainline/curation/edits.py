r"""Mark what a revision changed: FIGA's masks, as places in the text that any tokenizer can be laid over.

Guo et al. 2023 (FIGA), arXiv:2311.04072. ``chosen`` is the revision, ``rejected`` the initial answer. Along a shortest
edit script (Levenshtein, every edit costs 1) words that the revision inserted or put in place of others are marked in
``chosen``, words that it deleted or replaced in ``rejected``. With FIGA's weights,

.. math:: \tilde r_t = \alpha\,[t \text{ marked in the revision}] + \gamma\,[\text{not}], \qquad
          \hat r_t = -\beta\,[t \text{ marked in the initial answer}]

which are the affair of training: supervision ``edits:marks=kept`` reads the marks, preset figa has the weights.

The release edits token ids; here words and punctuation marks are edited, so that the marks belong to the data and not
to a tokenizer, and a token that holds a letter of a marked word is marked. Both agree where words are tokens (on the
release's own example, too). A change of white space alone is no change.

A mark is a span of aspect "edit" with score 1 (added) or 0 (removed) in ``chosen_spans`` and ``rejected_spans``, on the
row's own scale; spans of other aspects stay. ``edit_distance`` and ``edit_share`` say how much was changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field

from grainline.curation._edits import Places, Unit, changes
from grainline.curation._seam import Bench, Dropped, Row, Step, identity, signed
from grainline.data import fields
from grainline.errors import DataError
from grainline.rooms import text as written
from grainline.types import spec


@spec
class Edits:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2311.04072"

    unit: Unit = "words"
    """What is edited: words, or single characters, for languages that put no space between words."""
    most: float = Field(1.0, gt=0, le=1)
    """Drop a row of which a larger share of words was changed; 1 = keep all. FIGA has no such bound."""

    @contextmanager
    def open(self, bench: Bench) -> Iterator[Step]:
        yield _Marking(self)

    def row(self, row: Row) -> Sequence[Row]:
        from grainline.curation._asking import said

        _, answers = said(row)
        if [answer.side for answer in answers] != ["chosen", "rejected"]:
            raise DataError(
                "edits lie between a revised and an initial answer.",
                where=identity(row),
                instead="Write the first into chosen and the second into rejected (the step revise does).",
            )
        revised, initial = answers
        if not (revised.plain and initial.plain):
            return Dropped("an answer of several turns")
        found = changes(initial.text, revised.text, self.unit)
        if not found.distance:
            return Dropped("no word differs")
        if found.share > self.most:
            return Dropped("too much was changed")
        low, high = fields.score_range(row, where=identity(row)) or (0.0, 1.0)
        made = {
            **row,
            "chosen_spans": _marked(row, "chosen_spans", found.added, high),
            "rejected_spans": _marked(row, "rejected_spans", found.removed, low),
            "edit_distance": found.distance,
            "edit_share": round(found.share, 4),
        }
        return [signed(made, written(self))]


class _Marking:
    """The step, opened."""

    def __init__(self, spec: Edits) -> None:
        self.spec = spec

    def __call__(self, rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
        return map(self.spec.row, rows)

    def told(self, rows: Iterable[Row]) -> dict[str, Any]:
        """How many rows were marked, and which share of their words was changed on average."""
        shares = [row["edit_share"] for row in rows]
        return {"marked": len(shares), "changed": sum(shares) / len(shares) if shares else None}


def _marked(row: Row, column: str, places: Places, score: float) -> list[Any]:
    """The spans of ``column`` without old marks, and the new marks."""
    before = fields.parsed(row.get(column), where=f"{identity(row)} {column}") or []
    others = [span for span in before if span.get("aspect") != fields.EDIT]
    return [*others, *({"start": a, "end": b, "aspect": fields.EDIT, "score": score} for a, b in places)]
