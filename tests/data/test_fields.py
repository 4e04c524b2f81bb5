"""Single values are read, or refused with the field's name."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.data import fields
from grainline.errors import DataError
from grainline.types import Answer, Span


def test_values() -> None:
    assert fields.text(" a ", where="f") == " a "
    assert fields.flag(False, where="f") is False
    assert fields.number({"weight": 3}, "weight", where="f") == 3.0
    assert fields.number({}, "weight", where="f") is None
    assert fields.parsed('{"a": 1}', where="f") == {"a": 1}
    assert fields.parsed([1], where="f") == [1]
    assert [fields.is_list(value) for value in ([], (), "a", {}, None)] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (float("nan"), "NaN"), (3, "3 (int)"), ("x" * 99, "'" + "x" * 36 + "... (str)")],
)
def test_values_in_messages_are_short(value: Any, shown: str) -> None:
    assert fields.show(value) == shown


def test_spans_come_as_lists_or_json() -> None:
    said = Answer("abcdef")
    spans = (Span(1, 3, "a", -2.0),)
    row = {"chosen_spans": [{"start": 1, "end": 3, "aspect": "a", "score": -2}]}
    assert fields.with_spans(said, row, "chosen", where="f").spans == spans
    row = {"chosen_spans": '[{"start": 1, "end": 3, "aspect": "a", "score": -2}]'}  # type: ignore[dict-item]
    assert fields.with_spans(said, row, "chosen", where="f").spans == spans
    with pytest.raises(DataError, match=r"^f chosen_spans: 5 \(int\) is not a list\.$"):
        fields.with_spans(said, {"chosen_spans": 5}, "chosen", where="f")


MATRIX = {
    "aspect_names": ["safety", "clarity"],
    "score_range": [0, 4],
    "chosen_segments": [[0, 9], [9, 16]],
    "chosen_aspect_scores": [[4, 1], [None, 2]],
}
ONE_TWO = Answer("One here. Two x.")


def test_a_matrix_of_scores_becomes_spans() -> None:
    wanted = (Span(0, 9, "safety", 1.0), Span(0, 9, "clarity", 0.25), Span(9, 16, "clarity", 0.5))
    assert fields.with_spans(ONE_TWO, MATRIX, "chosen", where="f").spans == wanted
    texts = MATRIX | {"chosen_segments": ["One here. ", " Two x."]}  # white space between them is nobody's
    assert fields.with_spans(ONE_TWO, texts, "chosen", where="f").spans == (*wanted[:2], Span(10, 16, "clarity", 0.5))
    assert fields.with_spans(ONE_TWO, MATRIX, "rejected", where="f").spans == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen_segments": [[0, 9]]}, "f chosen_aspect_scores: 1 segments but 2 rows of scores."),
        ({"aspect_names": None}, "f aspect_names: null is not a list of names."),
        ({"chosen_aspect_scores": [[4], [1, 2]]}, "f chosen_aspect_scores[0]: [4] (list) is not a score for each of 2"),
        (
            {"chosen_aspect_scores": [[4, 1], [5, 2]]},
            "f chosen_aspect_scores[1] safety score: 5 is outside score_range",
        ),
        ({"chosen_segments": ["One here.", "Three."]}, "f chosen_segments[1]: 'Three.' (str) is not what follows"),
        ({"chosen_segments": ["One", "Two x."]}, "f chosen_segments[1]: 'Two x.' (str) is not what follows"),
        ({"chosen_segments": [[0, 9], [9, 17]]}, "f chosen_segments[1]: end 17 is outside the answer"),
        ({"score_range": [4, 0]}, "f score_range: [4, 0] (list) is not [worst, best]."),
    ],
    ids=["count", "names", "width", "range", "text", "gap", "outside", "order"],
)
def test_a_faulty_matrix_is_told_in_a_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        fields.with_spans(ONE_TWO, MATRIX | change, "chosen", where="f")
    assert str(caught.value).startswith(message)
