"""Conditions: where they stand, how levels are written, and that training and use read the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grainline.data.conditions import Condition, conditioned, level
from grainline.errors import DataError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "curation.json").read_text(encoding="utf-8"))
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Why?"}


def chat(*turns: dict[str, str], **options: Any) -> list[tuple[str, str]]:
    made = conditioned(turns, Condition({"honesty": 5, "helpfulness": 4.5}, **{"style": "tokens", **options}))
    assert not isinstance(made, str)
    return [(turn["role"], turn["content"]) for turn in made]


TOKENS = "<honesty: 5> <helpfulness: 4.5>"


def test_where_it_stands() -> None:
    assert chat(USER) == [("system", TOKENS), ("user", "Why?")]
    assert chat(SYSTEM, USER) == [("system", f"Be brief.\n\n{TOKENS}"), ("user", "Why?")]
    assert chat({"role": "system", "content": ""}, USER) == [("system", TOKENS), ("user", "Why?")]
    assert chat(SYSTEM, USER, place="user") == [("system", "Be brief."), ("user", f"{TOKENS} Why?")]
    first, talk = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}
    assert chat(first, talk, USER, place="user")[0] == ("user", "Hi.")  # what is asked last is what is answered
    with pytest.raises(DataError, match=r"the tool speaks last.*place=system"):
        chat(USER, talk, {"role": "tool", "content": "4"}, place="user")


def test_nothing_is_changed_in_place() -> None:
    conditioned((SYSTEM, USER), Condition({"a": 1}))
    assert (SYSTEM["content"], USER["content"]) == ("Be brief.", "Why?")


def test_plain_text_and_no_condition() -> None:
    assert conditioned("Why?", Condition({"honesty": 5}, "tokens")) == "<honesty: 5> Why?"
    assert conditioned("Why?", Condition({"overall": 8})).endswith("\nOverall score: 8.\n\nWhy?")
    assert conditioned("Why?", Condition({})) == "Why?"


def test_levels_are_written_as_in_the_release() -> None:
    """Whole numbers without a point, and a full stop behind: the last line of the release's goal."""
    for score, written in GOLDEN["reward_augmented"]["cases"]["score_rendering"].items():
        assert f"{level(float(score))}." == written
        tail = GOLDEN["reward_augmented"]["cases"]["official_outputs_tail_40_chars"]
        official = tail["add_pos_goal" if score == "8.0" else "add_neg_goal"]["chosen"][0][1].splitlines()[-1]
        ((_, said), _) = [(t["role"], t["content"]) for t in conditioned((USER,), Condition({"overall": float(score)}))]
        assert said.splitlines()[-1] == official
    low, high = Condition({}).scale
    assert f"{level(low)} is the worst and {level(high)} the best" in said


def test_a_condition_stands_in_a_row_and_is_read_again() -> None:
    one = Condition({"honesty": 2, "safety": 0}, "tokens", "user", (0, 5))
    again = Condition(**json.loads(json.dumps(one.said())))
    assert conditioned((USER,), again) == conditioned((USER,), one)
    assert conditioned("Why?", again.best()) == "<honesty: 5> <safety: 5> Why?"
