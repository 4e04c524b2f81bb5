"""Files read line by line; the rest is tested with the files of a run (test_read.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from grainline.errors import RunError
from grainline.report import jsonl


def test_lines_and_what_was_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert jsonl.many(file, lambda _: "") == []
    file.write_text('{"a": 1}\n\n{"a": 2}\n{"a"')
    assert [line["a"] for line in jsonl.many(file, lambda _: "")] == [1, 2]
    with pytest.raises(RunError, match=r"a.jsonl:3: odd"):
        jsonl.many(file, lambda line: "odd" if line["a"] == 2 else "")


def test_one_object(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": 1}')
    assert jsonl.one(file) == {"a": 1}
    file.write_text("[" * 100_000)
    with pytest.raises(RunError, match=r"a.json: unreadable"):
        jsonl.one(file)
