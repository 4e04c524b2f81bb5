"""Where a prompt ends and an answer begins, and what a chat turn may be."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.data.chat import after, answer, messages, part_ways, prompt
from grainline.errors import DataError

ASK: dict[str, Any] = {"role": "user", "content": "Why?"}
SAY: dict[str, Any] = {"role": "assistant", "content": "So."}
NO: dict[str, Any] = {"role": "assistant", "content": "No."}


def test_nulls_are_dropped_and_only_instructions_may_be_empty() -> None:
    assert messages([ASK | {"name": None}], where="a") == (ASK,)
    assert messages([{"role": "system", "content": ""}, ASK], where="a")[0]["content"] == ""
    with pytest.raises(DataError, match=r"^a\[0\]\.content: the text is empty"):
        messages([ASK | {"content": " "}], where="a")
    with pytest.raises(DataError, match=r"^a\[0\]\.content: null is not text\.$"):
        messages([{"role": "user"}], where="a")


def test_prompts_end_with_the_user_or_a_tool() -> None:
    call = {"role": "assistant", "tool_calls": [{"name": "look"}]}
    assert prompt([ASK, call, {"role": "tool", "content": ""}], where="a")[-1]["role"] == "tool"
    with pytest.raises(DataError, match="Move that turn to the beginning of both answers"):
        prompt([ASK, SAY], where="a")


def test_one_plain_turn_is_its_text_and_more_is_kept_whole() -> None:
    assert answer([SAY], where="a") == answer("So.", where="a")
    thought = SAY | {"reasoning_content": "Hm."}
    assert answer([thought], where="a").messages == (thought,)
    with pytest.raises(DataError, match=r"^a\[1\]: the answer ends with a user turn\."):
        answer([SAY, ASK], where="a")


def test_conversations_part_at_the_assistants_turn() -> None:
    assert part_ways([ASK, SAY], [ASK, NO], where="a") == ((ASK,), (SAY,), (NO,))
    shared = [ASK, SAY, ASK]
    assert part_ways([*shared, SAY], [*shared, NO], where="a")[0] == tuple(shared)
    with pytest.raises(DataError, match=r"part ways at turn 1 \(assistant\)"):
        part_ways([SAY], [NO], where="a")


def test_a_repeated_prompt_is_taken_off_once() -> None:
    assert after([ASK, SAY], prompt=(ASK,), where="a") == (SAY,)
    assert after([SAY], prompt=(ASK,), where="a") == [SAY]
    assert after("So.", prompt=(ASK,), where="a") == "So."
