"""Which answers rise, which fall, and where: by hand from log-probs of a few tokens."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.evaluation import displacement


def answer(policy: list[float], reference: list[float], kl: list[float]) -> dict[str, Any]:
    return {"tokens": len(policy), "policy": policy, "reference": reference, "kl": kl}


ROWS = [
    {
        "id": "a",
        "group": "p",
        "chosen": answer([-1.0, -2.0], [-2.0, -2.5], [0.1, 0.3]),  # + 1.0 + 0.5
        "rejected": answer([-3.0], [-1.0], [0.2]),  # - 2
    },
    {
        "id": "b",
        "group": "q",
        "chosen": answer([-2.0, -1.0, -1.0], [-1.0, -1.0, -1.0], [0.5, 0.0, 0.0]),  # - 1
        "rejected": answer([-1.5, -1.0], [-1.0, -1.0], [0.4, 0.0]),  # - 0.5
    },
]


def test_by_hand() -> None:
    found = displacement.figures(ROWS)
    assert found["displacement/chosen"] == (1.5 - 1.0) / 2
    assert found["displacement/rejected"] == (-2.0 - 0.5) / 2
    assert found["displacement/chosen_per_token"] == pytest.approx((1.5 / 2 - 1 / 3) / 2)
    assert found["displacement/chosen_falls"] == 1 / 2
    assert found["displacement/both_fall"] == 1 / 2
    assert found["kl/chosen_per_token"] == pytest.approx((0.1 + 0.3 + 0.5) / 5)
    assert found["kl/rejected_per_token"] == pytest.approx((0.2 + 0.4) / 3)
    # the margin is (1.5 + 2) + (-1 + 0.5) = 3; of the first tokens alone (1 + 2) + (-1 + 0.5) = 2.5
    assert found["displacement/first_1"] == pytest.approx(2.5 / 3)
    assert found["displacement/first_4"] == 1.0


def test_positions_by_hand() -> None:
    table = {(line["role"], line["from"]): line for line in displacement.positions(ROWS)}
    assert table["chosen", 0] == {
        "from": 0, "to": 1, "role": "chosen", "tokens": 2, "change": (1.0 - 1.0) / 2, "kl": 0.3,
    }  # fmt: skip
    assert table["chosen", 2] == {"from": 2, "to": 4, "role": "chosen", "tokens": 1, "change": 0.0, "kl": 0.0}
    assert ("chosen", 4) not in table
    assert sum(line["tokens"] for line in table.values()) == 2 + 1 + 3 + 2


def test_no_margin_has_no_shares() -> None:
    still = [row | {"chosen": answer([-1.0], [-1.0], [0.0]), "rejected": answer([-1.0], [-1.0], [0.0])} for row in ROWS]
    assert displacement.figures(still)["displacement/first_1"] is None
    assert displacement.margin_shares([]) == []


def test_labelled_rows() -> None:
    rows = [
        {"id": "a", "group": "p", "label": True, "answer": answer([-1.0], [-2.0], [0.1])},
        {"id": "b", "group": "q", "label": False, "answer": answer([-4.0], [-2.0], [0.1])},
    ]
    found = displacement.figures(rows)
    assert (found["displacement/desirable"], found["displacement/undesirable"]) == (1.0, -2.0)
    assert "displacement/both_fall" not in found
