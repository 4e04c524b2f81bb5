"""Does it prefer what is better, or what is longer?

==============================  ======================================================================================
figure                          meaning
==============================  ======================================================================================
length/prefers_longer           share of pairs of unequal length whose longer answer has more reward; a tie one half
length/longer_is_chosen         the same of those who chose: what a preference for length alone would be worth
length/accuracy_controlled      accuracy at equal length, by a logistic regression (``regression.py``)
length/accuracy_matched         accuracy over pairs whose lengths differ by a tenth of the longer at most
length/accuracy_chosen_longer   accuracy where the chosen answer is longer
length/accuracy_chosen_shorter  and where it is shorter: far below the other, length decides
length/margin_per_token         slope of the margin by the difference in tokens (chosen minus rejected), least squares
==============================  ======================================================================================

A figure that no pair speaks of is null. Lengths are tokens of the answers, their end included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from grainline.evaluation.intervals import interval, mean_interval
from grainline.evaluation.regression import length_controlled, slope

MATCHED = 0.1
"""Difference in length, as a share of the longer answer, up to which two answers are of like length."""
BUCKETS: tuple[int, ...] = (0, 16, 32, 64, 128, 256, 512)
"""Tokens of the longer answer at which the buckets of a table begin."""

Row = Mapping[str, Any]


def figures(rows: Sequence[Row], *, seed: int = 0) -> dict[str, float | None]:
    """The table above, of pairs with ``rewards/accuracies`` and ``rewards/margins``."""
    right = [row["rewards/accuracies"] for row in rows]
    apart = [row["chosen"]["tokens"] - row["rejected"]["tokens"] for row in rows]
    longest = [max(row["chosen"]["tokens"], row["rejected"]["tokens"]) for row in rows]
    unequal = [(r if a > 0 else 1 - r) for r, a in zip(right, apart, strict=True) if a]

    def controlled(index: Any) -> float:
        return length_controlled([right[i] for i in index], [apart[i] for i in index]).rate

    found: dict[str, float | None] = {
        "length/prefers_longer": _mean(unequal),
        "length/longer_is_chosen": _mean([float(a > 0) for a in apart if a]),
        "length/accuracy_controlled": controlled(range(len(rows))),
    }
    bounds = interval(controlled, [row["group"] for row in rows], seed=seed, draws=300)
    found["length/accuracy_controlled_low"], found["length/accuracy_controlled_high"] = bounds
    matched = [r for r, a, n in zip(right, apart, longest, strict=True) if abs(a) <= MATCHED * n]
    found["length/accuracy_matched"] = _mean(matched)
    found["length/matched_rows"] = float(len(matched))
    found["length/accuracy_chosen_longer"] = _mean([r for r, a in zip(right, apart, strict=True) if a > 0])
    found["length/accuracy_chosen_shorter"] = _mean([r for r, a in zip(right, apart, strict=True) if a < 0])
    found["length/margin_per_token"] = slope(apart, [row["rewards/margins"] for row in rows])
    return found


def table(rows: Sequence[Row], *, seed: int = 0) -> list[dict[str, Any]]:
    """Accuracy and margin by the longer answer's tokens."""
    found = []
    for low, high in zip(BUCKETS, (*BUCKETS[1:], math.inf), strict=True):
        there = [row for row in rows if low <= max(row["chosen"]["tokens"], row["rejected"]["tokens"]) < high]
        if there:
            right = [row["rewards/accuracies"] for row in there]
            bounds = mean_interval(right, [row["group"] for row in there], seed=seed)
            found.append(
                {
                    "from": low,
                    "to": None if high == math.inf else high,
                    "rows": len(there),
                    "accuracy": _mean(right),
                    "accuracy_low": bounds[0],
                    "accuracy_high": bounds[1],
                    "margin": _mean([row["rewards/margins"] for row in there]),
                }
            )
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
