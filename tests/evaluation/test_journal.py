"""Lines that outlive an interruption, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grainline.evaluation.journal import Journal, clean, key_of


def test_it_goes_on(tmp_path: Path) -> None:
    first = Journal(tmp_path / "x" / "rows.jsonl", "k")
    first.add([{"id": "b", "v": 1.5}, {"id": "a", "v": float("nan")}])
    again = Journal(tmp_path / "x" / "rows.jsonl", "k")
    assert "a" in again
    assert "c" not in again
    again.add([{"id": "c", "v": 2}])
    assert [line["v"] for line in again.ordered(["a", "b", "c"])] == [None, 1.5, 2]
    lines = (tmp_path / "x" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b", "c"]


def test_what_a_crash_cut_short_is_measured_again(tmp_path: Path) -> None:
    Journal(tmp_path / "rows.jsonl", "k").add([{"id": "a"}, {"id": "b"}])
    text = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(text[:-4], encoding="utf-8")
    again = Journal(tmp_path / "rows.jsonl", "k")
    assert list(again.lines) == ["a"]
    again.add([{"id": "b"}])
    assert list(Journal(tmp_path / "rows.jsonl", "k").lines) == ["a", "b"]


def test_another_key_begins_anew(tmp_path: Path) -> None:
    Journal(tmp_path / "rows.jsonl", "k").add([{"id": "a"}])
    Journal(tmp_path / "other.jsonl", "k").add([{"id": "o"}])
    assert Journal(tmp_path / "rows.jsonl", "another").lines == {}
    assert list(Journal(tmp_path / "other.jsonl", "k").lines) == ["o"]


def test_one_of_several_processes_writes(tmp_path: Path) -> None:
    reader = Journal(tmp_path / "rows.jsonl", "k", writes=False)
    reader.add([{"id": "a"}])
    assert "a" in reader
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["</script>\u2028\x00", "\ud800 half", '"quoted"\n'], ids=["page", "half", "quotes"])
def test_any_text_comes_back(text: str, tmp_path: Path) -> None:
    Journal(tmp_path / "rows.jsonl", "k").add([{"id": text, "text": text}])
    assert Journal(tmp_path / "rows.jsonl", "k").lines[text]["text"] == text


def test_keys_and_clean_numbers() -> None:
    assert key_of(a=1, b="x") == key_of(b="x", a=1) != key_of(a=2, b="x")
    assert clean({"a": [float("inf"), (1.0, float("-inf"))], 3: "x"}) == {"a": [None, [1.0, None]], "3": "x"}
