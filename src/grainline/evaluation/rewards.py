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

BINS = 10
DRAWS = 1000


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
    if duels:
        found |= _mean("pairs/accuracies", [_win(duel.won) for duel in duels], [duel.prompt for duel in duels], seed)
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
    import numpy as np

    group = _groups(prompts)
    sums, sizes = np.bincount(group, weights=values), np.bincount(group)
    times = _resamples(len(sizes), seed)
    return {name: float(np.mean(values))} | _interval(name, (times @ sums) / (times @ sizes))


def _auc(name: str, pieces: Sequence[Piece], seed: int) -> dict[str, float]:
    """Counts of pairs of pieces by their prompts, so that a resample of prompts is a quadratic form."""
    import numpy as np

    group = _groups([piece.prompt for piece in pieces])
    said, right = (np.array([getattr(piece, field) for piece in pieces]) for field in ("said", "right"))
    count = int(group.max()) + 1
    won, all_ = np.zeros((count, count)), np.zeros((count, count))
    for i in range(len(pieces)):  # of every piece: those that people hold to be worse
        worse = right < right[i]
        better = (said[worse] < said[i]) + 0.5 * (said[worse] == said[i])
        won[group[i]] += np.bincount(group[worse], weights=better, minlength=count)
        all_[group[i]] += np.bincount(group[worse], minlength=count)
    if not all_.sum():
        return {}
    times = _resamples(count, seed)
    draws = ((times @ won) * times).sum(1) / np.maximum(((times @ all_) * times).sum(1), 1e-12)
    return {name: float(won.sum() / all_.sum())} | _interval(name, draws)


def _groups(prompts: Sequence[str]) -> Any:
    import numpy as np

    place: dict[str, int] = {}
    return np.array([place.setdefault(prompt, len(place)) for prompt in prompts])


def _resamples(groups: int, seed: int) -> Any:
    """(DRAWS, groups) how often each prompt is in each resample."""
    import numpy as np

    drawn = np.random.default_rng(seed).integers(groups, size=(DRAWS, groups))
    return np.stack([np.bincount(row, minlength=groups) for row in drawn]).astype(float)


def _interval(name: str, draws: Any) -> dict[str, float]:
    import numpy as np

    low, high = np.quantile(draws, (0.025, 0.975))
    return {f"{name}_low": float(low), f"{name}_high": float(high)}
