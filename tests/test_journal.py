"""The journal of one step: what is written there, and what is read again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from grainline.curation._seam import Dropped, Row
from grainline.journal import Kept, carry
from grainline.types import spec

ROWS = [{"id": str(n), "prompt": f"p{n}"} for n in range(4)]


@spec
class _Odd:
    """Drops the first row, doubles the second, leaves the rest."""

    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    given: ClassVar[list[str]] = []

    @contextmanager
    def open(self, bench: Any) -> Iterator[Any]:
        yield self.each

    def each(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        for row in rows:
            self.given.append(row["id"])
            yield {"0": Dropped("the first"), "1": [row, row]}.get(row["id"], [row])  # type: ignore[misc]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    _Odd.given.clear()


def test_one_line_a_row(tmp_path: Path) -> None:
    file = tmp_path / "1.jsonl"
    told = carry(_Odd(), ROWS, 4, file, seed=0, quiet=True)
    said = [json.loads(line) for line in file.read_text().splitlines()]
    assert said[0] == "the first"
    assert [row["id"] for row in said[1]] == ["1", "1#2"]
    assert said[2:] == [[ROWS[2]], [ROWS[3]]]
    assert told | {"step": ""} == {"step": "", "rows": 4, "made": 4, "dropped": {"the first": 1}}
    kept = Kept(file)
    assert [row["id"] for row in kept] == [row["id"] for row in kept] == ["1", "1#2", "2", "3"]


def test_rows_that_are_told_of_are_not_handed_out_again(tmp_path: Path) -> None:
    file = tmp_path / "1.jsonl"
    told = carry(_Odd(), ROWS, 4, file, seed=0, quiet=True)
    whole = file.read_bytes()
    file.with_suffix(".json").unlink()
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]) + b'[{"id": "2", "pro')
    _Odd.given.clear()
    assert carry(_Odd(), ROWS, 4, file, seed=0, quiet=True) == told
    assert _Odd.given == ["2", "3"]
    assert file.read_bytes() == whole
    assert carry(_Odd(), iter(()), 4, file, seed=0, quiet=True) == told  # done: nothing is read


def test_a_step_tells_of_all_rows_whenever_they_were_made(tmp_path: Path) -> None:
    class Telling(_Odd):
        @contextmanager
        def open(self, bench: Any) -> Iterator[Any]:
            yield _Told(self.each)

    class _Told:
        def __init__(self, each: Any) -> None:
            self.each = each

        def __call__(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
            return self.each(rows)

        def told(self, rows: Iterable[Row]) -> dict[str, Any]:
            return {"ids": [row["id"] for row in rows]}

    journal = tmp_path / "1.jsonl"
    journal.write_text('"the first"\n[{"id": "kept"}]\n', encoding="utf-8")  # an earlier process got so far
    found = carry(Telling(), ROWS, 4, journal, seed=0, quiet=True)
    assert found["facts"] == {"ids": ["kept", "2", "3"]}
    assert "facts" not in carry(_Odd(), ROWS, 4, tmp_path / "2.jsonl", seed=0, quiet=True)
