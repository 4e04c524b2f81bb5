"""The whole answer, one voice."""

from __future__ import annotations

from grainline.supervision.sequence import Sequence
from grainline.types import Answer, AnswerTokens, Example, Record


def test_every_token_counts_one_whatever_was_said_before() -> None:
    record = Record("r", "Why?", (Answer("So."), Answer("Because.")))
    loud = AnswerTokens((5, 6, 2), ((0, 2), (2, 3), (3, 3)), (0.0, 4.0, -1.0))
    short = AnswerTokens((7, 2), ((0, 8), (8, 8)), (0.5, 0.5))
    marked = Sequence()(Example(record, (1, 2, 3), (loud, short)))
    assert [answer.weight for answer in marked.answers] == [(1.0, 1.0, 1.0), (1.0, 1.0)]


def test_an_empty_answer_has_no_voice() -> None:
    record = Record("r", "Why?", (Answer(""),), label=True)
    assert Sequence()(Example(record, (1,), (AnswerTokens((), (), ()),))).answers[0].weight == ()
