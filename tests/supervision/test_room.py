"""The battery that every supervision passes. A new file in ``supervision/`` joins by itself.

What a method cannot promise it declares as ``exceptions: ClassVar[dict[str, str]]``, item of this battery -> reason.
"""

from __future__ import annotations

import inspect
import itertools
import math
import sys
from typing import Any

import pytest

from grainline import rooms
from grainline.supervision import _seam
from grainline.types import Answer, AnswerTokens, Example, Record, Span

ROOM = "supervision"


def spelled(text: str) -> AnswerTokens:
    """A token for each word with the space before it, and the end-of-turn token, which covers no text."""
    cuts = [0, *(i for i, char in enumerate(text) if char == " " and i > 0), len(text)]
    offsets = [*((a, b) for a, b in itertools.pairwise(cuts) if a < b), (len(text), len(text))]
    ids = (*(sum(map(ord, text[a:b])) % 90 + 3 for a, b in offsets[:-1]), 2)
    return AnswerTokens(ids, tuple(offsets), (1.0,) * len(ids))


def example(*answers: Answer, label: bool | None = None) -> Example:
    record = Record("r1", "How do planes fly?", answers, label=label, margin=None if label is not None else 1.5)
    return Example(record, (1, 17, 23, 42), tuple(spelled(answer.text) for answer in answers))


def examples() -> dict[str, Example]:
    """What may come: a pair with spans on either side, one without, answers in other scripts, a labelled row."""
    true = Answer("Wings push air down. So they rise.", (Span(0, 20, "correctness", 1.0), Span(21, 34, "", 0.5)))
    false = Answer("Magic lifts them. Surely it does!", (Span(0, 5, "correctness", 0.0), Span(3, 17, "tone", 0.2)))
    return {
        "pair": example(true, false),
        "no spans": example(true._replace(spans=()), false._replace(spans=())),
        "equal answers": example(true, true),
        "other scripts": example(Answer("Flügel drücken 空気を下へ 🙂 ."), Answer("Так.", (Span(0, 4, "", 0.0),))),
        "no text": example(Answer(""), Answer("So.")),
        "labelled": example(false, label=False),
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", rooms.names(ROOM))


@pytest.fixture
def supervision(name: str, request: pytest.FixtureRequest) -> Any:
    cls = rooms.load(ROOM, name)
    item = request.function.__name__.removeprefix("test_")
    if item in (declared := getattr(cls, "exceptions", {})):
        pytest.skip(f"DECLARED EXCEPTION {name}, {item}: {declared[item]}")
    return cls()


def given(supervision: Any) -> list[Example]:
    """The examples that carry what the supervision needs."""
    spanned, paired = "spans" in supervision.needs, "pairs" in supervision.needs
    fitting = [one for one in examples().values() if one.record.is_pair or not paired]
    return [one for one in fitting if not spanned or any(answer.spans for answer in one.record.answers)]


def test_exceptions_name_items_of_this_battery(name: str) -> None:
    items = {key.removeprefix("test_") for key, _ in inspect.getmembers(sys.modules[__name__], inspect.isfunction)}
    assert set(getattr(rooms.load(ROOM, name), "exceptions", {})) <= items


def test_needs_are_known(supervision: Any) -> None:
    assert supervision.needs <= _seam.NEEDS


def test_text_round_trip(supervision: Any) -> None:
    assert rooms.parse(ROOM, rooms.text(supervision)) == supervision


def test_repr_round_trip(supervision: Any) -> None:
    assert eval(repr(supervision), {type(supervision).__name__: type(supervision)}) == supervision


def test_tokens_stay(supervision: Any) -> None:
    """The record, the prompt, and each answer's tokens and offsets are what they were."""
    for before in given(supervision):
        after = supervision(before)
        assert (after.record, after.prompt) == (before.record, before.prompt)
        assert [a.ids for a in after.answers] == [a.ids for a in before.answers]
        assert [a.offsets for a in after.answers] == [a.offsets for a in before.answers]


def test_one_finite_weight_a_token(supervision: Any) -> None:
    for one in given(supervision):
        for answer in supervision(one).answers:
            assert len(answer.weight) == len(answer.ids)
            assert all(isinstance(weight, float) and math.isfinite(weight) for weight in answer.weight)


def test_segments_and_scores_belong_together(supervision: Any) -> None:
    """Every token is in a segment, segments are counted from 0 in the order of the text, each has one finite score."""
    for one in given(supervision):
        for answer in supervision(one).answers:
            assert (answer.segment is None) == (answer.score is None)
            if answer.segment is None or answer.score is None:
                continue
            assert len(answer.segment) == len(answer.ids)
            assert list(answer.segment) == sorted(answer.segment)
            assert set(answer.segment) == set(range(len(answer.score)))
            assert all(isinstance(score, float) and math.isfinite(score) for score in answer.score)


def test_same_input_same_result(supervision: Any) -> None:
    """Nothing is kept between calls, and other examples in between do not matter."""
    first = [supervision(one) for one in given(supervision)]
    again = [type(supervision)()(one) for one in reversed(given(supervision))][::-1]
    assert first == again


def test_marks_do_not_pile_up(supervision: Any) -> None:
    """To be marked twice is to be marked once: weights are stated, not multiplied on."""
    for one in given(supervision):
        assert supervision(supervision(one)) == supervision(one)
