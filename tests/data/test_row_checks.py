"""Rows that can be used, and are odd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grainline.data import row_checks
from grainline.data.columns import record
from grainline.data.row_checks import BARELY, COMMON_MARKS, MARKS, OVERLAP, marks_of, odd

ASK = [{"role": "user", "content": "Why?"}]


def found(**row: Any) -> list[tuple[str, str]]:
    row = {"prompt": ASK, "chosen": "Because it is.", "rejected": "No."} | row
    row = {key: value for key, value in row.items() if value is not None}
    return [(p.kind, p.where) for p in odd(record(row, where="d:1", id="d:1"), COMMON_MARKS)]


def test_nothing_odd() -> None:
    assert found() == []
    assert found(chosen="if a <b> and </b>, a < s and x|y|, [INST, <|>") == []


@pytest.mark.parametrize("mark", ["<|im_end|>", "</s>", "[/INST]", "<end_of_turn>", "<|eot_id|>", "<<SYS>>"])
def test_special_tokens(mark: str) -> None:
    assert found(chosen=f"Because.{mark}") == [(MARKS, "d:1 chosen")]
    assert found(prompt=[{"role": "user", "content": f"{mark} why?"}], rejected=mark) == [
        (MARKS, "d:1 prompt"), (MARKS, "d:1 rejected"),
    ]  # fmt: skip
    assert found(prompt="Why?", chosen=None, rejected=None, completion=mark) == [(MARKS, "d:1 completion")]


def test_special_tokens_of_a_tokenizer(tokenizers: Callable[..., Any]) -> None:
    marks = marks_of(tokenizers("chatml"))
    text = marks.search("a <unk> b <|eot|> c <|im_end|>")
    assert text is not None
    assert text.group() == "<|im_end|>"


def test_overlapping_spans() -> None:
    def span(start: int, end: int, aspect: str) -> dict[str, Any]:
        return {"start": start, "end": end, "aspect": aspect, "score": 1.0}

    assert found(chosen_spans=[span(0, 7, "a"), span(7, 9, "a"), span(0, 14, "b")]) == []
    spans = [span(5, 9, "a"), span(0, 7, "a"), span(8, 10, "a")]
    assert found(chosen_spans=spans) == [(OVERLAP, "d:1 chosen")]
    (problem,) = odd(
        record(
            {"prompt": ASK, "chosen": "Because it is.", "rejected": "No.", "chosen_spans": spans}, where="d:1", id="1"
        ),
        COMMON_MARKS,
    )
    assert problem.what == "spans of 'a' overlap in characters 5 to 7: [0, 7] and [5, 9]."


def test_answers_that_barely_differ() -> None:
    assert found(chosen="No.", rejected="no.\n") == [(BARELY, "d:1")]
    assert found(chosen="No.", rejected="No!") == []


def test_sides() -> None:
    labelled = record({"prompt": "a", "completion": "b", "label": False}, where="d:1", id="1")
    assert row_checks.sides(labelled) == ("completion",)
