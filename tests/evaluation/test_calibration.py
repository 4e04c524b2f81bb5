"""Reliability of margins: by hand, and against scikit-learn's Brier score."""

from __future__ import annotations

import math
import random

import pytest
from sklearn.metrics import brier_score_loss

from grainline.evaluation.calibration import calibration


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_by_hand() -> None:
    """Confidences 0.82, 0.82, 0.62 and a tie; right, wrong, wrong, half."""
    margins = [logit(0.82), -logit(0.82), -logit(0.62), 0.0]
    found = calibration(margins, [1, 0, 0, 0.5])
    assert [(line["from"], line["to"], line["rows"], line["was"]) for line in found.table] == [
        (0.5, 0.55, 1, 0.5), (0.6, 0.65, 1, 0.0), (0.8, 0.85, 2, 0.5),
    ]  # fmt: skip
    assert [line["said"] for line in found.table] == pytest.approx([0.5, 0.62, 0.82])
    assert found.ece == pytest.approx((1 * abs(0.5 - 0.5) + 1 * abs(0 - 0.62) + 2 * abs(0.5 - 0.82)) / 4)
    assert found.brier == pytest.approx((0.18**2 + 0.82**2 + 0.62**2 + 0.5**2) / 4)


def test_brier_is_sklearns() -> None:
    rng = random.Random(0)
    margins = [rng.gauss(0.5, 2) for _ in range(300)]
    chances = [1 / (1 + math.exp(-m)) for m in margins]
    both = brier_score_loss([1] * 300 + [0] * 300, [*chances, *(1 - p for p in chances)])
    assert calibration(margins, [float(m > 0) for m in margins]).brier == pytest.approx(both)


def test_what_is_calibrated_has_no_error() -> None:
    """20 000 pairs whose chosen answer was drawn by the very chance that the margin says."""
    rng = random.Random(1)
    margins = []
    for _ in range(20_000):
        size = rng.uniform(0, 4)
        margins.append(size if rng.random() < 1 / (1 + math.exp(-size)) else -size)
    right = [float(m > 0) for m in margins]
    assert calibration(margins, right).ece < 0.015
    assert calibration([3 * m for m in margins], right).ece > 0.1  # too sure of itself


def test_enormous_margins() -> None:
    found = calibration([1e4, -1e4], [1, 0])
    assert (found.brier, found.ece) == (0.5, 0.5)
