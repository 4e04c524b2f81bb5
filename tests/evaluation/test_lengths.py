"""Does it prefer the longer one? By hand, and with a judge that looks at nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grainline.evaluation import lengths


def row(name: int, chosen: int, rejected: int, margin: float) -> dict[str, Any]:
    return {
        "id": str(name),
        "group": str(name),
        "chosen": {"tokens": chosen},
        "rejected": {"tokens": rejected},
        "rewards/margins": margin,
        "rewards/accuracies": 0.5 + 0.5 * ((margin > 0) - (margin < 0)),
    }


ROWS = [row(0, 20, 10, 1.0), row(1, 10, 20, -2.0), row(2, 10, 20, 3.0), row(3, 20, 19, -1.0), row(4, 300, 300, 0.0)]


def test_by_hand() -> None:
    found = lengths.figures(ROWS)
    assert found["length/prefers_longer"] == (1 + 1 + 0 + 0) / 4  # the longer one: chosen, rejected, rejected, chosen
    assert found["length/longer_is_chosen"] == 2 / 4
    assert found["length/accuracy_matched"] == (0 + 0.5) / 2
    assert found["length/matched_rows"] == 2
    assert found["length/accuracy_chosen_longer"] == 1 / 2
    assert found["length/accuracy_chosen_shorter"] == 1 / 2
    slope = np.polyfit([10, -10, -10, 1, 0], [1.0, -2.0, 3.0, -1.0, 0.0], 1)[0]
    assert found["length/margin_per_token"] == pytest.approx(slope)
    assert found["length/accuracy_controlled_low"] <= found["length/accuracy_controlled"]  # type: ignore[operator]


def test_table_by_hand() -> None:
    table = lengths.table(ROWS)
    assert [(line["from"], line["to"], line["rows"], line["accuracy"]) for line in table] == [
        (16, 32, 4, 0.5), (256, 512, 1, 0.5),
    ]  # fmt: skip
    assert table[0]["margin"] == (1 - 2 + 3 - 1) / 4


def test_a_liking_for_length_is_seen() -> None:
    """Five times in seven the longer answer gets more reward, whichever it is; in nine rows of ten that is the chosen
    one. Accuracy is 0.67, at equal length there is nothing."""
    rows = []
    for i in range(210):
        longer, likes = bool(i % 10), i % 7 > 1
        chosen, rejected = (40, 20) if longer else (20, 40)
        rows.append(row(i, chosen + i % 5, rejected, 1.0 if longer == likes else -1.0))
    found = lengths.figures(rows)
    assert found["length/prefers_longer"] == 5 / 7
    assert found["length/longer_is_chosen"] == 0.9
    assert sum(r["rewards/accuracies"] for r in rows) / 210 == pytest.approx(0.9 * 5 / 7 + 0.1 * 2 / 7)
    assert found["length/accuracy_controlled"] == pytest.approx(0.5, abs=0.08)
    assert found["length/accuracy_chosen_longer"] == pytest.approx(5 / 7)
    assert found["length/accuracy_chosen_shorter"] == pytest.approx(2 / 7)
    assert found["length/accuracy_matched"] is None
