"""Accuracy by the place of the relevant document, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.evaluation import documents


def line(question: str, place: float, right: float) -> dict[str, Any]:
    return {"group": f"{question}{place}", "question": question, "place": place, "right": right}


LINES = [line("a", 0, 1), line("a", 1, 0), line("b", 0, 1), line("b", 1, 1), line("c", 0, 1), line("d", 1, 0)]


def test_by_hand() -> None:
    found = documents.figures(LINES)
    first, second = 1.0, 1 / 3
    assert found["documents/accuracy"] == pytest.approx((first + second) / 2)
    assert found["documents/fluctuation"] == pytest.approx((first - second) / 2)
    assert found["documents/range"] == pytest.approx(first - second)
    assert found["documents/consistent"] == 1 / 2  # b is, a is not; c and d were asked once
    assert [(row["place"], row["rows"], row["accuracy"]) for row in documents.table(LINES)] == [
        (0, 3, 1.0), (1, 3, pytest.approx(1 / 3)),
    ]  # fmt: skip


def test_no_question_was_asked_twice() -> None:
    assert documents.figures(LINES[-2:])["documents/consistent"] is None


def test_a_question_is_its_answers() -> None:
    assert documents.question(["x", "y"]) == documents.question(("x", "y")) != documents.question(["xy", ""])
    assert documents.question(["\ud800", "y"])  # half a character is text too
