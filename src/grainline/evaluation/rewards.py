"""How good is a reward? What it says of pieces that people judged, and of pairs, with intervals.

=============================  =======================================================================================
metric                         meaning
=============================  =======================================================================================
pairs/accuracies               share of pairs whose chosen answer is said to be the better one; a tie counts one half
ASPECT/auc                     how often the better of two pieces gets the higher score; a tie counts one half. 1/2 is
                               chance; of right and wrong pieces it is the area under the ROC curve
ASPECT/accuracies              share of pieces that are said to be on the right side of 1/2
ASPECT/commoner                the same of somebody who always says the commoner side
ASPECT/right                   mean of what people said, 0 to 1
ASPECT/calibration             expected calibration error: how far a score is from what people said of pieces with such
                               scores, on average; ten bins
ASPECT/pieces                  how many were judged
=============================  =======================================================================================

``*_low`` and ``*_high`` are 95 % bootstrap intervals over prompts. Accuracies and calibration need scores between 0 and
1: a reward without bounds has neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grainline.concordance import concordance
from grainline.evaluation.intervals import interval, mean_interval

BINS = 10


class Piece(NamedTuple):
    """One judged piece of an answer, in one aspect."""

    prompt: str  # pieces of one prompt are not independent
    said: float  # by the reward
    right: float  # by people, 0 to 1


class Duel(NamedTuple):
    """One pair."""

    prompt: str
    won: float  # how likely the chosen answer is the better one, as the reward says


def measured(
    pieces: Mapping[str, Sequence[Piece]], duels: Sequence[Duel], *, bounded: bool, seed: int = 0
) -> dict[str, float]:
    """All metrics of the table that these data allow; what the reward said NaN of is left out."""
    found: dict[str, float] = {}
    decided = [duel for duel in duels if not math.isnan(duel.won)]
    if decided:
        won = [_win(duel.won) for duel in decided]
        found |= _mean("pairs/accuracies", won, [duel.prompt for duel in decided], seed)
    for aspect, every in pieces.items():
        known = [piece for piece in every if not math.isnan(piece.said)]
        name = aspect or "overall"
        if not known:
            continue
        found |= _auc(f"{name}/auc", known, seed)
        if bounded:
            sides = [float((piece.said > 0.5) == (piece.right > 0.5)) for piece in known]
            found |= _mean(f"{name}/accuracies", sides, [piece.prompt for piece in known], seed)
            share = sum(piece.right > 0.5 for piece in known) / len(known)
            found[f"{name}/commoner"] = max(share, 1 - share)
            found[f"{name}/calibration"] = calibration_error(known)
        found[f"{name}/right"] = sum(piece.right for piece in known) / len(known)
        found[f"{name}/pieces"] = float(len(known))
    return found


def reliability(pieces: Sequence[Piece], bins: int = BINS) -> list[dict[str, float]]:
    """Of each bin of scores that has any: its bounds, how many, what was said and what people said, on average."""
    rows = []
    for b in range(bins):
        inside = [p for p in pieces if min(int(p.said * bins), bins - 1) == b]
        if inside:
            said, right = (sum(getattr(p, field) for p in inside) / len(inside) for field in ("said", "right"))
            rows.append({"from": b / bins, "to": (b + 1) / bins, "pieces": len(inside), "said": said, "right": right})
    return rows


def calibration_error(pieces: Sequence[Piece], bins: int = BINS) -> float:
    """Expected calibration error: bins by weight of their pieces."""
    return sum(row["pieces"] * abs(row["said"] - row["right"]) for row in reliability(pieces, bins)) / len(pieces)


def _win(likely: float) -> float:
    return 0.5 + 0.5 * ((likely > 0.5) - (likely < 0.5))


def _mean(name: str, values: Sequence[float], prompts: Sequence[str], seed: int) -> dict[str, float]:
    return _with_bounds(name, math.fsum(values) / len(values), mean_interval(values, prompts, seed=seed))


def _auc(name: str, pieces: Sequence[Piece], seed: int) -> dict[str, float]:
    import numpy as np

    said, right = (np.array([getattr(piece, field) for piece in pieces]) for field in ("said", "right"))
    found = concordance(said, right)
    if math.isnan(found):
        return {}

    def of_rows(rows: Any) -> float:
        return concordance(said[rows], right[rows])

    return _with_bounds(name, found, interval(of_rows, [piece.prompt for piece in pieces], seed=seed))


def _with_bounds(name: str, value: float, bounds: tuple[float, float]) -> dict[str, float]:
    return {name: value, f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
