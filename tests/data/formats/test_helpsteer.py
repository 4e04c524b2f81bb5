"""Rows as nvidia/HelpSteer2 publishes them (columns and conversation marks from its card); the words are ours."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.data.formats import helpsteer
from grainline.types import Span


def native(prompt: str, response: str, *ratings: int) -> dict[str, Any]:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response, **dict(zip(names, ratings, strict=True))}


def test_the_best_meets_the_worst_of_each_prompt(imported: Any) -> None:
    loaded = imported(
        "helpsteer",
        [
            native("c#", "A car.", 0, 1, 4, 2, 1),
            native("c#", "A musical note.", 1, 2, 4, 0, 0),
            native("c#", "A language by Microsoft.", 3, 4, 4, 2, 1),
            native("Why?", "Because.", 4, 2, 1, 0, 0),
            native("Why?", "It depends.", 2, 4, 4, 1, 2),  # 4 + 2 = 2 + 4
            native("Alone?", "Yes.", 4, 4, 4, 4, 4),
        ],
    )
    (record,) = loaded.records
    assert (record.where, record.margin) == ("native.jsonl:1", (3 + 4 - 0 - 1) / 2)
    assert record.prompt == ({"role": "user", "content": "c#"},)
    chosen, rejected = record.answers
    assert (chosen.text, rejected.text) == ("A language by Microsoft.", "A car.")
    assert chosen.spans == tuple(Span(0, 24, a, n / 4) for a, n in zip(helpsteer.ASPECTS, (3, 4, 4), strict=True))
    assert rejected.spans == tuple(Span(0, 6, a, n / 4) for a, n in zip(helpsteer.ASPECTS, (0, 1, 4), strict=True))
    assert loaded.passed_over == {"answers between best and worst": 1, "ties": 2, "answers that stand alone": 1}
    assert loaded.problems == []


def test_conversations_become_turns(imported: Any) -> None:
    prompt = "Hello\n<extra_id_1>Assistant\nHi!\nHow can I help?\n<extra_id_1>User\nTell me\na joke."
    record = imported(
        "helpsteer", [native(prompt, "No.", 0, 0, 4, 0, 0), native(prompt, "Ha.", 4, 4, 4, 0, 0)]
    ).records[0]
    assert [(turn["role"], turn["content"]) for turn in record.prompt] == [
        ("user", "Hello"), ("assistant", "Hi!\nHow can I help?"), ("user", "Tell me\na joke."),
    ]  # fmt: skip
    assert record.answers[0].text == "Ha."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"helpfulness": 5}, "native.jsonl:2 helpfulness: 5 is not on the scale from 0 to 4."),
        ({"correctness": None}, "native.jsonl:2 correctness: null is not a finite number."),
        ({"response": " "}, "native.jsonl:2 response: the text is empty."),
        (None, "native.jsonl:2: [] (list) is not an object."),
    ],
)
def test_a_bad_row_is_named_and_the_others_pair(imported: Any, wrong: dict[str, Any] | None, message: str) -> None:
    good = [native("c#", "A note.", 1, 1, 1, 1, 1), native("c#", "A language.", 3, 3, 3, 3, 3)]
    bad = [] if wrong is None else native("c#", "A key.", 2, 2, 2, 2, 2) | wrong
    loaded = imported("helpsteer", [good[0], bad, good[1]])
    assert [str(problem).startswith(message) for problem in loaded.problems] == [True]
    assert [answer.text for answer in loaded.records[0].answers] == ["A language.", "A note."]
