"""Win rates: both orders, ties, length."""

from __future__ import annotations

import math

import pytest

from grainline.evaluation import duels


def turned(duel: tuple[str, str]) -> tuple[str, str]:
    return duel[1], duel[0]


def test_a_liking_for_the_first_place_cancels() -> None:
    found = list(duels.both_orders([("a", "b"), ("c", "d")], lambda some: [1.0] * len(some), turned))
    assert found == [(0.5, False), (0.5, False)]


def test_what_both_orders_say_is_said() -> None:
    longer = lambda some: [0.5 + 0.5 * ((len(a) > len(b)) - (len(a) < len(b))) for a, b in some]  # noqa: E731
    found = list(duels.both_orders([("aa", "b"), ("c", "dd"), ("e", "f")], longer, turned))
    assert found == [(1.0, True), (0.0, True), (0.5, True)]


def test_figures_by_hand() -> None:
    lines = [
        {"id": str(i), "group": str(i), "win": win, "longer": 0, "agreed": win != 0.5}
        for i, win in enumerate([1.0, 1.0, 0.0, 0.5])
    ]
    found = duels.figures(lines)
    assert found["generation/win_rate"] == 2.5 / 4
    assert found["generation/win_rate_controlled"] == pytest.approx(2.5 / 4, abs=0.002)
    assert (found["generation/ties"], found["generation/agreement"]) == (0.25, 0.75)
    assert found["generation/win_rate_low"] <= 0.625 <= found["generation/win_rate_high"]  # type: ignore[operator]


def test_length_is_taken_out() -> None:
    """A judge that looks at length alone, one long answer more often than not; and the policy is the longer one in 150
    of 200."""
    apart = [10 + i if i % 4 else -10 - i for i in range(200)]
    lines = [
        {"id": str(i), "group": str(i), "win": 1 / (1 + math.exp(-a / 50)), "longer": a} for i, a in enumerate(apart)
    ]
    found = duels.figures(lines)
    assert found["generation/win_rate"] > 0.65  # type: ignore[operator]
    assert found["generation/win_rate_controlled"] == pytest.approx(0.5, abs=0.04)
    assert "generation/agreement" not in found
