"""Requested against obtained level: by hand, and ranks against scipy's."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats

from grainline.evaluation import control


def line(asked: float, obtained: float | None, level: float | None, group: str = "p") -> dict[str, Any]:
    return {"aspect": "help", "group": group, "requested": asked, "obtained": obtained, "level": level}


LINES = [
    line(1, 0.0, 1.0, "p"),
    line(1, 0.25, 2.0, "q"),
    line(5, 0.75, 4.0, "p"),
    line(5, 1.0, 5.0, "q"),
    line(5, None, None),
]


def test_by_hand() -> None:
    found = control.figures(LINES)
    assert found["control/help/error"] == (0 + 1 + 1 + 0) / 4
    assert found["control/help/slope"] == pytest.approx((4.5 - 1.5) / 4)
    table = control.table(LINES)
    assert [(row["requested"], row["answers"], row["obtained"]) for row in table] == [(1, 2, 1.5), (5, 2, 4.5)]


def test_rank_is_spearmans() -> None:
    asked, obtained = [1, 1, 2, 3, 3, 3, 5, 5], [0.3, 0.1, 0.1, 0.7, 0.5, 0.2, 0.9, 0.9]
    lines = [line(a, o, None, str(i)) for i, (a, o) in enumerate(zip(asked, obtained, strict=True))]
    found = control.figures(lines)
    assert found["control/help/rank"] == pytest.approx(scipy.stats.spearmanr(asked, obtained).statistic)
    assert found["control/help/slope"] == pytest.approx(scipy.stats.linregress(asked, obtained).slope)
    assert "control/help/error" not in found  # a score without bounds is on no scale
    assert control.ranks([3, 1, 3]) == [2.5, 1, 2.5]


def test_a_model_that_does_not_listen() -> None:
    lines = [line(asked, 0.5, 3.0, group) for asked in (1.0, 3.0, 5.0) for group in "pq"]
    found = control.figures(lines)
    assert (found["control/help/slope"], found["control/help/rank"]) == (0.0, 0.0)
    assert found["control/help/error"] == pytest.approx((2 + 0 + 2) / 3)
