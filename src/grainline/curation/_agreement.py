"""How well judgements of one thing agree: with each other (Krippendorff's alpha), and with what the data say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from grainline.concordance import concordance
from grainline.data import fields


def alpha(units: Iterable[Sequence[float]]) -> float:
    r"""Krippendorff's alpha for numbers (interval metric): 1 = all agree, 0 = as if each had judged by chance.

    Each unit holds what several judges said of one thing; NaN is a judge who said nothing. NaN is also the answer where
    nothing was judged twice, or all judgements are the same number. Krippendorff 2004, *Content Analysis*, ch. 11:

    .. math:: \alpha = 1 - \frac{(n - 1) \sum_u \frac{1}{m_u - 1} \sum_{i \ne j} (v_{ui} - v_{uj})^2}
                                {\sum_{i \ne j} (v_i - v_j)^2}
    """
    within, n, total, squares, origin = 0.0, 0, 0.0, 0.0, math.nan
    for unit in units:
        values = [value for value in unit if not math.isnan(value)]
        if len(values) < 2:
            continue
        origin = values[0] if math.isnan(origin) else origin  # sums of squares lose digits far from 0
        shifted = [value - origin for value in values]
        within += _apart(len(shifted), sum(shifted), sum(v * v for v in shifted)) / (len(shifted) - 1)
        n, total, squares = n + len(shifted), total + sum(shifted), squares + sum(v * v for v in shifted)
    apart = _apart(n, total, squares)
    return 1 - (n - 1) * within / apart if apart > 0 else math.nan


def _apart(n: int, total: float, squares: float) -> float:
    """The squared differences of n numbers, over all pairs of two, each twice."""
    return 2 * (n * squares - total * total)


class Tally:
    """What scored rows tell, taken together.

    =====================  =========================================================================================
    coverage               share of pieces x aspects that could be scored
    chosen_above_rejected  share of pairs whose chosen answer has the higher score, a tie being half
    labels_in_order        of rows with a label: how often a desirable answer is above an undesirable one
    faults_in_order        of answers with spans: how often a piece without a fault (a span below the best score) is
                           above one with
    alpha                  Krippendorff's, between the members of a jury, on whole answers
    =====================  =========================================================================================

    Chance is 0.5, and 0 for alpha. What the rows do not tell is not there.
    """

    def __init__(self, aspects: Sequence[str]) -> None:
        self.aspects = aspects
        self.cells = self.scored = 0
        self.pairs: list[float] = []
        self.labels: list[tuple[float, bool]] = []  # the score of each answer, and whether it is desirable
        self.pieces: list[tuple[float, bool]] = []  # the score of each piece, and whether it is without a fault
        self.units: list[list[float]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        line = row["curation"][-1]
        self.cells, self.scored = self.cells + line["cells"], self.scored + line["scored"]
        self.units += [[_number(value) for value in unit] for unit in line.get("members", ())]
        if fields.is_number(row.get("chosen_score")) and fields.is_number(row.get("rejected_score")):
            difference = row["chosen_score"] - row["rejected_score"]
            self.pairs.append(0.5 + 0.5 * ((difference > 0) - (difference < 0)))
        if isinstance(row.get("label"), bool):
            self.labels.append((_number(row.get("completion_score")), row["label"]))
        for side in ("chosen", "rejected", "completion"):
            self.pieces += self._pieces(row, side)

    def _pieces(self, row: Mapping[str, Any], side: str) -> Iterator[tuple[float, bool]]:
        """(its score, whether nobody found fault with it) of each piece of an answer that has spans."""
        spans, scores = (fields.parsed(row.get(f"{side}_{kind}"), where="") for kind in ("spans", "aspect_scores"))
        if not spans or not scores or not set(self.aspects) <= set(row["aspect_names"]):  # or numbers alone were made
            return
        best = (fields.score_range(row, where="") or (0.0, 1.0))[1]
        faults = [(span["start"], span["end"]) for span in spans if (span.get("score") or 0.0) < best]
        places = [row["aspect_names"].index(name) for name in self.aspects]
        for (start, stop), cells in zip(row[f"{side}_segments"], scores, strict=True):
            known = [cells[place] for place in places if cells[place] is not None]
            score = math.fsum(known) / len(known) if known else math.nan
            yield score, not any(start < end and begin < stop for begin, end in faults)

    def facts(self) -> dict[str, float]:
        found = {
            "coverage": self.scored / self.cells if self.cells else math.nan,
            "chosen_above_rejected": math.fsum(self.pairs) / len(self.pairs) if self.pairs else math.nan,
            "labels_in_order": _in_order(self.labels),
            "faults_in_order": _in_order(self.pieces),
            "alpha": alpha(self.units),
        }
        return {name: round(value, 6) for name, value in found.items() if not math.isnan(value)}


def _in_order(scored: Sequence[tuple[float, bool]]) -> float:
    return concordance([score for score, _ in scored], [good for _, good in scored])


def _number(value: Any) -> float:
    return float(value) if fields.is_number(value) else math.nan
