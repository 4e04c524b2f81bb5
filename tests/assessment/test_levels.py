"""Requested levels: each prompt under each, judged without the condition, laid on one scale."""

from __future__ import annotations

from typing import Any

import pytest


def test_levels(world: Any) -> None:
    lines = world.lines("levels.jsonl")
    assert len(lines) == 6 * 2
    for line in lines:
        if line["obtained"] is not None:
            assert line["level"] == pytest.approx(1 + 9 * line["obtained"])  # from 0..1 to 1..10
    low, high = (world.lines(f"answers-policy-warm-{level}.jsonl") for level in (1, 10))
    assert "Warm score: 1." in low[0]["prompt"][0]["content"]
    assert "Warm score: 10." in high[0]["prompt"][0]["content"]
    (first, *_) = world.facts()["families"]["control"]["tables"]["levels"]
    judged = [line["level"] for line in lines if line["requested"] == 1 and line["level"] is not None]
    assert (first["requested"], first["answers"]) == (1, len(judged))
    assert first["obtained"] == pytest.approx(sum(judged) / len(judged))
