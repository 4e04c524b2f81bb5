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
    """The margin is the difference in length; in nine rows of ten the chosen answer is longer. Accuracy says 0.9, at
    equal length there is nothing."""
    rows = [row(i, *((30 + i, 20) if i % 10 else (20, 30 + i)), 1.0 if i % 10 else -1.0) for i in range(200)]
    found = lengths.figures(rows)
    assert found["length/prefers_longer"] == 1.0
    assert found["length/longer_is_chosen"] == 0.9
    assert found["length/accuracy_controlled"] == pytest.approx(0.5, abs=0.1)
    assert (found["length/accuracy_chosen_longer"], found["length/accuracy_chosen_shorter"]) == (1.0, 0.0)
    assert found["length/accuracy_matched"] is None
