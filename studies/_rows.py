"""Rows of the studies: read, drawn, written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from grainline.data import files

QA_FEEDBACK = Path(__file__).parents[2] / "shared" / "data" / "qa_feedback"


def preferences(part: str, questions: int) -> list[dict[str, Any]]:
    """Pairs of qa_feedback: all of so many questions of ``train`` or ``test``, which are drawn once for all."""
    rows = read(QA_FEEDBACK / f"prefs_{part}.jsonl.gz")
    asked = set(random.Random(0).sample(sorted({row["group"] for row in rows}), questions))
    return [row for row in rows if row["group"] in asked]


def read(source: str | Path) -> list[dict[str, Any]]:
    """Raw rows of a file or packaged data set."""
    return [dict(row.row) for row in files.rows(str(source), split="train")[1]]


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    """In one order for all methods, so that all see the same pairs at the same steps."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["id"])))
    return str(file)
