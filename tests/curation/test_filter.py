"""filter: each bound keeps what meets it and counts the rest by reason."""

from __future__ import annotations

from typing import Any

import pytest

from _steps import left, made, pair
from grainline.curation._parts import record
from grainline.curation.filter import agreement
from grainline.errors import DataError, SpecError


def judged(id: str, **aspects: tuple[float, float]) -> dict[str, Any]:
    """A pair whose answers have a score for each aspect."""
    row = pair(id, "Yes.", "No!.")
    for n, side in enumerate(("chosen", "rejected")):
        row[f"{side}_spans"] = [{"start": 0, "end": 4, "aspect": a, "score": s[n]} for a, s in aspects.items()]
    return row


def test_rows_are_dropped_for_the_first_reason_and_else_left_alone() -> None:
    rows = [pair("a", margin=2), pair("b", margin=0.5), pair("c", "x" * 90, margin=0), pair("d", "x" * 90, margin=3)]
    found = made("filter:margin=1,longest=20", rows)
    assert found == [[rows[0]], "margin below 1", "margin below 1", "an answer of more than 20 characters"]
    assert made("filter", rows) == [[row] for row in rows]


def test_option_margin() -> None:
    assert left("filter:margin=0.5", [pair("a", margin=0.5), pair("b", margin=0.49)]) == ["a"]
    with pytest.raises(DataError, match="a margin: null is not a finite number"):
        left("filter:margin=0", [pair("a")])


def test_option_agreement() -> None:
    three_of_four = judged("a", truth=(1, 0), safety=(0.5, 0.2), tone=(0, 1), order=(1, 0))
    a_tie = judged("b", truth=(1, 0), tone=(0.5, 0.5))
    assert agreement(record(three_of_four)) == 3 / 4
    assert agreement(record(a_tie)) == (1 + 1 / 2) / 2
    assert left("filter:agreement=0.8", [three_of_four, a_tie, judged("c", truth=(1, 0))]) == ["c"]
    several = judged("d", truth=(1, 0))
    several["chosen_spans"] += [
        {"start": 0, "end": 2, "aspect": "truth", "score": -2},
        {"start": 0, "end": 1, "type": "x"},
    ]
    assert agreement(record(several)) == 0  # (1 - 2) / 2 < 0; x is judged on one side only
    with pytest.raises(DataError, match="a: no aspect is judged on both sides"):
        left("filter:agreement=0.5", [pair("a")])


def test_option_balance() -> None:
    rows = [pair("a", "x" * 20, "y" * 10), pair("b", "x" * 10, "y" * 21)]
    assert made("filter:balance=2", rows)[1] == "one answer more than 2 times as long as another"
    assert left("filter:balance=2", rows) == ["a"]


def test_option_shortest() -> None:
    assert left("filter:shortest=5", [pair("a", "12345", "54321"), pair("b", "1234", "54321")]) == ["a"]


def test_option_longest() -> None:
    assert left("filter:longest=5", [pair("a", "12345", "54321"), pair("b", "123456", "54321")]) == ["a"]


def test_option_longest_prompt() -> None:
    talk = pair("b") | {"prompt": [{"role": "system", "content": "123"}, {"role": "user", "content": "45678"}]}
    assert left("filter:longest_prompt=8", [pair("a"), talk]) == ["a"]  # "Why a?"; 123, a line break, 45678
    assert left("filter:longest_prompt=9", [pair("a"), talk]) == ["a", "b"]


def test_option_unit() -> None:
    rows = [pair("a", "one two three", "one two"), pair("b", "one", "one two")]
    assert left("filter:shortest=2,unit=words", rows) == ["a"]
    assert left("filter:shortest=2", rows) == ["a", "b"]


def test_option_without() -> None:
    rows = [pair("a"), pair("b", rejected="As an AI, I cannot.")]
    assert made("filter:without='(?i)as an ai'", rows)[1] == "has /(?i)as an ai/"
    with pytest.raises(SpecError, match="no regular expression"):
        left("filter:without='['", rows)


def test_option_having() -> None:
    rows = [pair("a", "Well: 4."), pair("b")]
    assert left(r"filter:having='\\d'", rows) == ["a"]


def test_option_within() -> None:
    rows = [pair("a"), pair("b", "Why not?")]
    assert left("filter:having=Why", rows) == ["b"]
    assert left("filter:having=Why,within=prompt", rows) == ["a", "b"]
    assert left("filter:without=Why,within=both", rows) == []


def test_option_least() -> None:
    rows = [pair("a", score=0.7, scores={"x": 2}), pair("b", score=0.2, scores={"x": 9})]
    assert left("filter:least.score=0.5", rows) == ["a"]
    assert left("filter:least={scores.x: 3}", rows) == ["b"]
    with pytest.raises(DataError, match=r"a scores\.y: null is not"):
        left("filter:least={scores.y: 3}", rows)


def test_option_most() -> None:
    rows = [pair("a", spread=0.7), pair("b", spread=0.2)]
    assert left("filter:most.spread=0.5", rows) == ["b"]


def test_rows_of_other_kinds() -> None:
    labelled = {"id": "a", "prompt": "p", "completion": "x" * 30, "label": True}
    several = {"id": "b", "prompt": "p", "answers": ["x", {"text": "y" * 30}]}
    assert left("filter:longest=20", [labelled, several]) == []
    assert left("filter:longest=30", [labelled, several]) == ["a", "b"]
    with pytest.raises(DataError, match="b: no aspect"):
        left("filter:agreement=1", [several])
