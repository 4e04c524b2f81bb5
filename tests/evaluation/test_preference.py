"""All figures of held-out rows together, per aspect, and against others."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.evaluation import preference


def row(
    name: str, margin: float, policy: tuple[float, float], reference: tuple[float, float], **more: Any
) -> dict[str, Any]:
    def side(i: int) -> dict[str, Any]:
        return {"tokens": 2, "policy": [policy[i], -1.0], "reference": [reference[i], -1.0]}

    right = 0.5 + 0.5 * ((margin > 0) - (margin < 0))
    numbers = {
        "rewards/margins": margin,
        "rewards/accuracies": right,
        "likelihood/accuracies": float(policy[0] > policy[1]),
    }
    return {"id": name, "group": name, **numbers, "chosen": side(0), "rejected": side(1), **more}


ROWS = [
    row("a", 1.0, (-1, -2), (-3, -2), **{"rewards/safety/margins": 1.0, "rewards/safety/accuracies": 1.0}),
    row("b", -2.0, (-3, -2), (-3, -2), **{"rewards/safety/margins": 2.0, "rewards/safety/accuracies": 1.0}),
    row("c", 0.0, (-1, -2), (-2, -2)),
]


def test_figures_and_tables() -> None:
    found, tables = preference.figures(ROWS), preference.tables(ROWS)
    assert found["rewards/accuracies"] == (1 + 0 + 0.5) / 3
    assert found["rows"] == 3
    assert {"calibration/ece", "length/prefers_longer", "against_reference/likelihood_p"} <= set(found)
    assert [(line["aspect"], line["rows"], line["accuracy"], line["margin"]) for line in tables["aspects"]] == [
        ("safety", 2, 1.0, 1.5)
    ]
    assert sum(line["rows"] for line in tables["calibration"]) == 3


def test_against_the_reference() -> None:
    """Likelihood of policy: right, wrong, right; of the reference: wrong, wrong, a tie."""
    at = preference.against_reference(ROWS)
    assert at.difference == pytest.approx((1 + 0 + 0.5) / 3)
    assert at.p == 0.5  # two prompts differ: both signs alike in two cases of four


def test_against_another_run() -> None:
    others = [row("b", 1.0, (-1, -2), (-3, -2)), row("a", 0.5, (-1, -2), (-3, -2)), row("z", 9.0, (-1, -2), (-3, -2))]
    found = preference.against_run(ROWS, others)
    assert found["against/rows"] == 2
    assert found["against/rewards/margins"] == ((1.0 - 0.5) + (-2.0 - 1.0)) / 2
    assert found["against/rewards/accuracies"] == ((1 - 1) + (0 - 1)) / 2


def test_labelled_rows_and_rows_without_margin() -> None:
    rows = [{"id": "a", "group": "a", "logps/answer": -3.0, "answer": {"tokens": 1, "policy": [-3.0]}, "label": True}]
    assert preference.figures(rows) == {"logps/answer": -3.0, "rows": 1.0}
    assert preference.tables(rows) == {}
