r"""Win or loss without the length: a logistic regression, as AlpacaEval 2 does it.

Dubois et al. 2024, arXiv:2404.04475. With the outcome :math:`y_i \in [0, 1]` (1: won, 1/2: a tie) and the difference
in length :math:`\Delta_i` (ours minus theirs, divided by its standard deviation over the data),

.. math:: P(y_i = 1) = \sigma\bigl(\theta + \gamma \tanh \Delta_i\bigr)

and the length-controlled rate is what the model says at :math:`\Delta = 0`: :math:`\sigma(\theta)`. The published
program adds a term for each instruction's difficulty and a pull towards its own baselines, both read from a file of
annotations of its 805 instructions, and chooses an L1 penalty by cross-validation. Elsewhere there is no such file:
this is its formula ``length_controlled_minimal``, with a fixed L2 penalty of ``RIDGE / 2`` on each coefficient, that
keeps rows which can be separated from going to infinity and moves nothing else by much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RIDGE = 0.01
"""1 / C of scikit-learn, whose C = 100 AlpacaEval starts from."""


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
    theta, gamma = fit(np.stack([np.ones_like(feature), feature], 1), y)
    return Controlled(float(1 / (1 + np.exp(-theta))), float(theta), float(gamma))


def fit(design, outcome, ridge: float = RIDGE):  # type: ignore[no-untyped-def]
    """Coefficients of least cross-entropy plus ``ridge / 2`` times their squares, by Newton's steps.

    ``design`` (rows, columns), ``outcome`` (rows,) in [0, 1]; numpy arrays.
    """
    import numpy as np

    at = np.zeros(design.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ at, -500, 500)))
        slope = design.T @ (p - outcome) + ridge * at
        curve = (design * (p * (1 - p))[:, None]).T @ design + ridge * np.eye(len(at))
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
