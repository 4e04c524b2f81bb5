"""What goes first when a prompt is too long, and what never goes."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.data.shorten import beheaded, last_user, room, without_oldest


def chat(roles: str) -> tuple[dict[str, Any], ...]:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return tuple({"role": names[role], "content": f"{role}{n}"} for n, role in enumerate(roles))


@pytest.mark.parametrize(
    ("roles", "kept"),
    [
        ("u", []),
        ("su", []),
        ("suauau", ["s0 u3 a4 u5", "s0 u5"]),
        ("uau", ["u2"]),
        ("uuu", ["u1 u2", "u2"]),
        ("uauat", ["u2 a3 t4"]),  # the tool's answer stays with the question
        ("auau", ["u1 a2 u3", "u3"]),
    ],
)
def test_whole_exchanges_go_oldest_first(roles: str, kept: list[str]) -> None:
    assert [" ".join(turn["content"] for turn in turns) for turns in without_oldest(chat(roles))] == kept


@pytest.mark.parametrize(("longest", "tokens"), [(10, 90), (75, 25), (99, 25), (500, 25)])
def test_a_long_answer_leaves_the_prompt_a_quarter(longest: int, tokens: int) -> None:
    assert room(max_length=100, longest=longest) == tokens


def test_only_the_last_users_turn_is_cut() -> None:
    turns = chat("uauat")
    assert last_user(turns) == 2
    assert last_user(chat("s")) is None
    short = beheaded(turns, 2, 1)
    assert [turn["content"] for turn in short] == ["u0", "a1", "2", "a3", "t4"]
    assert turns[2]["content"] == "u2"
