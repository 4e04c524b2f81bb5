"""The partner of an answer, and whether its tokens stand in its text."""

from __future__ import annotations

import pytest

from grainline.errors import DataError
from grainline.supervision._parts import partners, unplaced
from grainline.types import Answer, AnswerTokens, Example, Record


def test_partners_are_the_answers_of_a_pair() -> None:
    one, two = (AnswerTokens((n,), ((0, 1),), (1.0,)) for n in (5, 6))
    assert partners(Example(Record("r", "Why?", (Answer("a"), Answer("b"))), (1,), (one, two))) == (one, two)
    alone = Example(Record("r", "Why?", (Answer("a"),), label=True, where="f:3"), (1,), (one,))
    with pytest.raises(DataError, match="f:3: a labelled answer has no other to be compared with"):
        partners(alone)


def test_tokens_without_any_text_are_unplaced() -> None:
    ids, ones = (5, 6), (1.0, 1.0)
    assert unplaced(AnswerTokens(ids, ((0, 0), (3, 3)), ones))
    assert not unplaced(AnswerTokens(ids, ((0, 3), (3, 3)), ones))
