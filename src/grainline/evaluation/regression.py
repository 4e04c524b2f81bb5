r"""Win or loss without the length: a logistic regression, as AlpacaEval 2 does it.

Dubois et al. 2024, arXiv:2404.04475. With the outcome :math:`y_i \in [0, 1]` (1: won, 1/2: a tie) and the difference
in length :math:`\Delta_i` (ours minus theirs, divided by its standard deviation over the data),

.. math:: P(y_i = 1) = \sigma\bigl(\theta + \gamma \tanh \Delta_i\bigr)

and the length-controlled rate is what the model says at :math:`\Delta = 0`: :math:`\sigma(\theta)`. Where one side is
shorter nearly always, that is far outside the data and :math:`\gamma` is anybody's guess, so it must be held. The
published program holds it by annotations of its own baseline told to be brief or verbose, and adds a term for each
instruction's difficulty, both from files of its 805 instructions. Elsewhere there are no such files: here the penalty
``rows * PULL / 2`` on :math:`\gamma^2` holds it (our choice). On the published annotations of 56 models the controlled
rates are 1.3 points from the published ones in the mean, 4.8 at most; without the penalty it is 6.6 and 27
(``bench/alpaca_eval.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RIDGE = 0.01
"""1 / C of scikit-learn, whose C = 100 AlpacaEval starts from: rows that can be separated do not go to infinity."""
PULL = 1 / 80
"""Of a row on gamma: 10 for AlpacaEval's 805 rows, the best of 1, 10, 50 and 200 on its leaderboard."""


class Controlled(NamedTuple):
    """What is left of a rate when the lengths are equal."""

    rate: float  # sigma(theta)
    theta: float  # log odds at equal length
    gamma: float  # log odds that a difference of one tanh unit is worth; above 0: longer wins


def length_controlled(outcome: Sequence[float], difference: Sequence[float]) -> Controlled:
    """The rate at equal lengths.

    Args:
        outcome: 1 won, 0 lost, between where it was not decided.
        difference: in length, ours minus theirs, any unit.
    """
    import numpy as np

    y, apart = np.asarray(outcome, dtype=float), np.asarray(difference, dtype=float)
    scale = apart.std(ddof=1) if len(apart) > 1 else 0.0
    feature = np.tanh(apart / scale) if scale > 0 else np.zeros_like(apart)
    theta, gamma = fit(np.stack([np.ones_like(feature), feature], 1), y, (RIDGE, RIDGE + PULL * len(y)))
    return Controlled(float(1 / (1 + np.exp(-theta))), float(theta), float(gamma))


def fit(design, outcome, ridge: float | Sequence[float] = RIDGE):  # type: ignore[no-untyped-def]
    """Coefficients of least cross-entropy plus ``ridge / 2`` times their squares, by Newton's steps.

    ``design`` (rows, columns), ``outcome`` (rows,) in [0, 1]; numpy arrays. ``ridge`` is one for all columns or each.
    """
    import numpy as np

    at = np.zeros(design.shape[1])
    held = ridge * np.ones_like(at)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ at, -500, 500)))
        slope = design.T @ (p - outcome) + held * at
        curve = (design * (p * (1 - p))[:, None]).T @ design + np.diag(held)
        step = np.linalg.solve(curve, slope)
        at = at - step / max(1.0, float(np.abs(step).max()) / 2)  # far away a full step overshoots
        if np.abs(step).max() < 1e-10:
            break
    return at


def slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Of least squares; None where x does not vary."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread if spread else None
