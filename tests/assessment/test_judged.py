"""Rewards as judges: those that score, those that compare, and those that like a place."""

from __future__ import annotations

from typing import Any

import pytest

from _toy import Toy

WARM = {"glad", "kind", "yes", "sure", "warm", "good"}


def warmth(text: str) -> float | None:
    words = text.split()
    return sum(word in WARM for word in words) / len(words) if words else None


def test_scores_decide(world: Any) -> None:
    for line in world.lines("samples.jsonl"):
        own, other = warmth(line["policy"]), warmth(line["reference"])
        assert (line["score_policy"], line["score_reference"]) == (own, other)
        tie = own is None or other is None or own == other
        assert line["win"] == (0.5 if tie else float(own > other))  # type: ignore[operator]
    scores = [warmth(line["policy"]) for line in world.lines("samples.jsonl")]
    known = [score for score in scores if score is not None]
    assert world.figures["generation/score/policy"] == pytest.approx(sum(known) / len(known))


def test_a_judge_that_likes_the_first_decides_nothing(world: Any, copied: Any, toy: Toy) -> None:
    run = copied()
    found = run.evaluate(
        toy.held_out, progress=False, generate=3, max_new_tokens=4, judge=f"{world.rewards}:Early"
    )["test"]  # fmt: skip
    assert (found["generation/win_rate"], found["generation/ties"], found["generation/agreement"]) == (0.5, 1.0, 0.0)
