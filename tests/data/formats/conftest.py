"""Native rows are read through their format, written in our columns, and read back as the same records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grainline.data import files
from grainline.data.formats import Skipped, converted
from grainline.data.load import Loaded, read
from grainline.errors import DataError

Imported = Callable[[str, list[Any]], Loaded]


@pytest.fixture
def imported(tmp_path: Path) -> Imported:
    def through(name: str, natives: list[Any]) -> Loaded:
        native, ours = tmp_path / "native.jsonl", tmp_path / "ours.jsonl"
        native.write_text("".join(json.dumps(row) + "\n" for row in natives), encoding="utf-8")
        loaded = read(native, format=name)
        rows = [row.row for row in converted(name, files.rows(native, split="train")[1])]
        good = [row for row in rows if not isinstance(row, (DataError, Skipped))]
        ours.write_text("".join(json.dumps(row) + "\n" for row in good), encoding="utf-8")
        if loaded.records:
            assert read(ours).digest == loaded.digest
        return loaded

    return through
