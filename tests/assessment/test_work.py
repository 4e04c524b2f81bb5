"""What decides a line, and how lines are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_rows_are_named_and_grouped(world: Any) -> None:
    rows = world.lines("rows.jsonl")
    held_out = [json.loads(line) for line in Path(world.toy.held_out).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(held_out)
    assert len({row["group"] for row in rows}) == len(
        {json.dumps(row.get("prompt", row["chosen"])) for row in held_out}
    )
    assert all(row["numbers"]["place"] in (0, 1) for row in rows)
    for row in rows:
        for role in ("chosen", "rejected"):
            assert {len(row[role][key]) for key in ("policy", "reference", "kl")} == {row[role]["tokens"]}


def test_nothing_is_nan(world: Any) -> None:
    """Every file can be read by those who do not know of NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    for file in world.folder.glob("*.json*"):
        for text in file.read_text(encoding="utf-8").splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(text, parse_constant=refuse)
