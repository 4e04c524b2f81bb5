"""How often the better of two is said to be better: one figure for rewards, for spreads and for juries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def concordance(said: Sequence[float] | Any, right: Sequence[float] | Any) -> float:
    r"""Of all two that differ in ``right``, the share whose order ``said`` keeps; a tie in ``said`` counts one half.

    .. math:: P(s_i > s_j) + \tfrac12 P(s_i = s_j) \qquad \text{given } r_i > r_j

    1/2 is chance. Where ``right`` knows two values it is the area under the ROC curve, Mann and Whitney's U over its
    largest value; of graded values it is (Somers' D + 1) / 2. NaN in either is left out; NaN is the answer where no two
    differ.
    """
    import numpy as np

    said_N, right_N = np.asarray(said, dtype=float), np.asarray(right, dtype=float)
    known_N = ~(np.isnan(said_N) | np.isnan(right_N))
    ranks, rank_N = np.unique(said_N[known_N], return_inverse=True)
    worse_R = np.zeros(len(ranks))  # how many of all lower levels are said to be of each rank
    kept, compared = 0.0, 0.0
    for level in np.unique(right_N[known_N]):
        own_N = rank_N[right_N[known_N] == level]
        below_R = worse_R.cumsum() - worse_R
        kept += (below_R + 0.5 * worse_R)[own_N].sum()
        compared += len(own_N) * worse_R.sum()
        worse_R += np.bincount(own_N, minlength=len(ranks))
    return float(kept / compared) if compared else math.nan
