"""Who an answer's partner is, and whether its tokens can be found in its text."""

from __future__ import annotations

from grainline.errors import DataError
from grainline.types import AnswerTokens, Example


def partners(example: Example) -> tuple[AnswerTokens, AnswerTokens]:
    """(chosen, rejected), for marks that depend on both.

    Raises:
        DataError: a labelled answer, which has no partner.
    """
    if not example.record.is_pair:
        raise DataError(
            "a labelled answer has no other to be compared with.",
            where=example.record.where,
            instead="Choose supervision=sequence, or data of pairs.",
        )
    chosen, rejected = example.answers
    return chosen, rejected


def unplaced(tokens: AnswerTokens) -> bool:
    """Whether no token stands for any text: the chat template rewrote the answer."""
    return all(start >= stop for start, stop in tokens.offsets)
