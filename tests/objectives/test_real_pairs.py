"""Every objective through the front door on real preferences: 20 steps of a tiny model over a few pairs of hh-rlhf.

By hand: ``make test PYTEST="-m slow" TESTS=tests/objectives/test_real_pairs.py``.
"""

from __future__ import annotations

import gzip
import json
import math
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy, jsonl
from grainline import rooms
from grainline.runs import align

pytestmark = [pytest.mark.slow, pytest.mark.real]
RARELY = {
    "apo-down": "both answers fall, and the margin is not what it works on first",
    "bcr": "within its budget it is dpo, beyond it the chosen answer is held",
    "dnpo": "noise works against the margin",
    "sft": "has no margin",
    "signed-sft": "has no margin",
}
"""Objectives whose margin need not have grown after 20 steps, and why."""


def rows(shared_data: Path, objective: str, count: int = 8) -> list[dict[str, Any]]:
    """A few real pairs: with error spans for the objective that reads segments, with made-up doubts for updpo."""
    file = "qa_feedback/spans_train.jsonl.gz" if objective == "2d-dpo" else "hh_harmless/train.jsonl.gz"
    with gzip.open(shared_data / file, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in islice(lines, count)]
    if objective == "updpo":
        found = [row | {"chosen_uncertainty": 0.1 * i, "rejected_uncertainty": 0.2} for i, row in enumerate(found)]
    return found


@pytest.mark.parametrize("objective", rooms.names("objectives"))
def test_it_learns_real_pairs(objective: str, toy: Toy, shared_data: Path, tmp_path: Path) -> None:
    data = jsonl(tmp_path / "pairs.jsonl", rows(shared_data, objective))
    supervision = "segments" if objective == "2d-dpo" else "sequence"
    choices = toy.choices(
        tmp_path / "run",
        data=data,
        objective=objective,
        supervision=supervision,
        steps=20,
        batch_size=8,
        max_length=384,
    )
    run = align(**choices)
    assert run.finished
    lines = [line for line in run.metrics if line["step"] > 0]
    assert len(lines) == 20
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert lines[0]["grad_norm"] > 0  # later a hinge may be content with every pair
    margins = [line["rewards/margins"] for line in lines if "rewards/margins" in line]
    if margins and objective not in RARELY:
        assert sum(margins[-5:]) / 5 > margins[0] + 1e-4
