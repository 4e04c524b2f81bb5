r"""Does the margin mean what it says? :math:`\sigma(m)` is the policy's own chance that the chosen answer is better.

A pair has no order of its own, so what is asked is: of the pairs whose better answer the policy names with confidence
:math:`c = \max(\sigma(m), 1 - \sigma(m)) \ge 1/2`, in how many is it right?

.. math:: \mathrm{ECE} = \sum_b \tfrac{n_b}{n} \bigl|\text{right}_b - \bar c_b\bigr|, \qquad
    \mathrm{Brier} = \tfrac1n \sum_i (1 - \sigma(m_i))^2

over ten bins of equal width from 1/2 to 1 (Guo et al. 2017, arXiv:1706.04599; Brier 1950). A tie counts one half.
Always 1/2 gives a Brier score of 0.25 and, where half are right, an ECE of 0. For losses other than a logistic one the
margin is no log odds, and the figures say how far it is from being one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

BINS = 10


class Calibration(NamedTuple):
    ece: float  # 0 is best
    brier: float  # 0 is best
    table: list[dict[str, Any]]  # bins that hold a pair


def calibration(margins: Sequence[float], right: Sequence[float]) -> Calibration:
    """Of the pairs' margins (chosen minus rejected, log odds) and whether each is right (1, 0, or 1/2 at a tie)."""
    said = [_sigmoid(abs(margin)) for margin in margins]
    table = []
    for b in range(BINS):
        low, high = 0.5 + 0.05 * b, 0.5 + 0.05 * (b + 1)
        rows = [i for i, c in enumerate(said) if _bin(c) == b]
        if rows:
            table.append(
                {
                    "from": round(low, 2),
                    "to": round(high, 2),
                    "rows": len(rows),
                    "said": sum(said[i] for i in rows) / len(rows),
                    "was": sum(right[i] for i in rows) / len(rows),
                }
            )
    ece = sum(line["rows"] * abs(line["was"] - line["said"]) for line in table) / len(said)
    return Calibration(ece, sum(_sigmoid(-margin) ** 2 for margin in margins) / len(said), table)


def _bin(confidence: float) -> int:
    return min(BINS - 1, int((confidence - 0.5) / 0.5 * BINS))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
