"""Shorter prompts for rows that are too long: pure functions on chat turns and token numbers.

The rule, in order: the oldest turns go first, whole exchanges at a time, never instructions at the beginning nor the
last user's turn; then the last user's turn loses its beginning; only then answers lose their ends. A long answer does
not eat the question: the prompt may always keep a quarter of ``max_length``.
"""

from __future__ import annotations

from collections.abc import Iterator

from grainline.data.chat import Messages


def room(*, max_length: int, longest: int) -> int:
    """Tokens the prompt may have beside its longest answer."""
    return max(max_length - longest, max_length // 4, 1)


def without_oldest(turns: Messages) -> Iterator[Messages]:
    """The conversation with one exchange less, two less... down to the last user's turn and what follows it."""
    head = next((n for n, turn in enumerate(turns) if turn["role"] not in ("system", "developer")), len(turns))
    users = [n for n, turn in enumerate(turns) if turn["role"] == "user" and n > head]
    for start in users:  # a conversation that begins with a user's turn pleases every template
        yield turns[:head] + turns[start:]


def last_user(turns: Messages) -> int | None:
    """Index of the last user's turn."""
    return next((n for n in range(len(turns) - 1, -1, -1) if turns[n]["role"] == "user"), None)


def beheaded(turns: Messages, at: int, cut: int) -> Messages:
    """Turn ``at`` without the first ``cut`` characters of its content."""
    turn = turns[at]
    return (*turns[:at], {**turn, "content": turn["content"][cut:]}, *turns[at + 1 :])
