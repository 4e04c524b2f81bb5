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
    assert fields.with_spans(said, row, "chosen_spans", where="f").spans == spans
    row = {"chosen_spans": '[{"start": 1, "end": 3, "aspect": "a", "score": -2}]'}  # type: ignore[dict-item]
    assert fields.with_spans(said, row, "chosen_spans", where="f").spans == spans
    with pytest.raises(DataError, match=r"^f chosen_spans: 5 \(int\) is not a list of spans\.$"):
        fields.with_spans(said, {"chosen_spans": 5}, "chosen_spans", where="f")
