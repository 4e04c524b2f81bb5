"""Agreement against figures in print, another package, and what chance gives."""

from __future__ import annotations

import math
import random

import pytest

from grainline.curation._agreement import alpha

NO = math.nan
# Three coders, fifteen units: Krippendorff's example, as on Wikipedia's page (0.811 for intervals).
CODERS = (
    (NO, NO, NO, NO, NO, 3, 4, 1, 2, 1, 1, 3, 3, NO, 3),
    (1, NO, 2, 1, 3, 3, 4, 3, NO, NO, NO, NO, NO, NO, NO),
    (NO, NO, 2, 1, 3, 4, 4, NO, 2, 1, 1, 3, 3, NO, 4),
)


def pair_by_pair(units: list[tuple[float, ...]]) -> float:
    """The definition, over all pairs of values of units that were judged twice or more."""
    kept = [[v for v in unit if not math.isnan(v)] for unit in units]
    kept = [unit for unit in kept if len(unit) > 1]
    flat = [v for unit in kept for v in unit]
    n = len(flat)
    observed = sum((a - b) ** 2 / (len(unit) - 1) for unit in kept for a in unit for b in unit) / n
    expected = sum((a - b) ** 2 for a in flat for b in flat) / (n * (n - 1))
    return 1 - observed / expected


def test_the_example_in_print() -> None:
    units = list(zip(*CODERS, strict=True))
    assert alpha(units) == pytest.approx(0.8108448928121059, abs=1e-12)  # krippendorff 0.9.0 (PyPI), interval
    assert alpha(units) == pytest.approx(pair_by_pair(units), abs=1e-12)
    far = [tuple(v + 1e6 for v in unit) for unit in units]
    assert alpha(far) == pytest.approx(alpha(units), abs=1e-9)


def test_by_hand() -> None:
    """(0, 1) and (2, 2): within = 2 * 1; all pairs of 0, 1, 2, 2: 2 * (1 + 4 + 4 + 1 + 1 + 0) = 22."""
    assert alpha([(0, 1), (2, 2), (5,), (NO, 7)]) == pytest.approx(1 - 3 * 2 / 22)


def test_agreement_is_one_and_chance_is_nought() -> None:
    rng = random.Random(0)
    assert alpha([(v, v, v) for v in (1, 2, 5)]) == 1
    assert abs(alpha([(rng.random(), rng.random()) for _ in range(5000)])) < 0.05
    assert math.isnan(alpha([(1, 1), (1, 1)]))
    assert math.isnan(alpha([(1, NO), (2,)]))
    assert math.isnan(alpha([]))
