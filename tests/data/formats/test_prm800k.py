"""Rows in the shape of OpenAI's README of PRM800K; the problem is ours."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.types import Span


def step(*candidates: tuple[str, int | None], chosen: int | None = 0, human: Any = None) -> dict[str, Any]:
    said = [{"text": text, "rating": rating, "flagged": False} for text, rating in candidates]
    return {"completions": said, "human_completion": human, "chosen_completion": chosen}


def native(*steps: Any, finish: str = "solution") -> dict[str, Any]:
    question = {"problem": "What is $2+2\\cdot 3$?", "ground_truth_answer": "8", "pre_generated_steps": None}
    label = {"steps": list(steps), "total_time": 1000, "finish_reason": finish}
    return {"labeler": "340d", "timestamp": "2023-01-22T04:34:27", "generation": 9,
            "is_quality_control_question": False, "is_initial_screening_question": False, "question": question,
            "label": label}  # fmt: skip


HUMAN = {"text": "So $2+6$.", "rating": None, "source": "human", "flagged": False, "corrected_rating": None}
GOOD = [
    step(("We multiply first.", 0)),
    step(("So $4\\cdot 3$.", -1), chosen=None, human=HUMAN),
    step(("It is 9.", -1), ("It is 8.", 1), ("Done.", None), chosen=1),
]


def test_ratings_become_spans_of_the_followed_steps(imported: Any) -> None:
    (record,) = imported("prm800k", [native(*GOOD)]).records
    (answer,) = record.answers
    assert answer.text == "We multiply first.\nSo $2+6$.\nIt is 8."
    assert answer.spans == (
        Span(0, 18, "correctness", 0.5), Span(19, 28, "correctness", 1.0), Span(29, 37, "correctness", 1.0),
    )  # fmt: skip
    assert record.label is True
    assert record.prompt == ({"role": "user", "content": "What is $2+2\\cdot 3$?"},)


def test_the_error_that_ended_the_labelling_ends_the_answer(imported: Any) -> None:
    last = step(("It is 12.", -1), ("It is 8.", 1), chosen=None)
    (record,) = imported("prm800k", [native(GOOD[0], last, finish="found_error")]).records
    assert record.answers[0].text == "We multiply first.\nIt is 12."
    assert [span.score for span in record.answers[0].spans] == [0.5, 0.0]
    assert record.label is False


def test_a_step_nobody_rated_has_no_span(imported: Any) -> None:
    (record,) = imported("prm800k", [native(step(("Hm.", None)), GOOD[2])]).records
    assert record.answers[0].spans == (Span(4, 12, "correctness", 1.0),)


def test_a_written_step_may_be_plain_text(imported: Any) -> None:
    (record,) = imported("prm800k", [native(step(chosen=None, human="It is 8."))]).records
    assert record.answers[0].spans == (Span(0, 8, "correctness", 1.0),)


def test_solutions_without_a_verdict_are_counted(imported: Any) -> None:
    gone = {"completions": None, "human_completion": None, "chosen_completion": None}
    loaded = imported("prm800k", [native(*GOOD, finish="give_up"), native(gone), native(*GOOD), native(*GOOD, gone)])
    assert loaded.passed_over == {"solutions without a verdict": 2}
    assert loaded.records[0].answers == loaded.records[1].answers


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (native(step(("It is 8.", 2))), "label steps[0] completions[0] rating: 2 is not on the scale from -1 to 1."),
        (native(step(("It is 8.", 1), chosen=1)), "label steps[0] chosen_completion: 1 (int) is none of the 1 comp"),
        (native(GOOD[0], "It is 8."), "label steps[1]: 'It is 8.' (str) is not an object."),
        (native(step((" ", 1))), "label steps[0] completions[0] text: the text is empty."),
        ({"question": None, "label": {"steps": []}}, "question: null is not an object."),
        ({"question": {"problem": "?"}, "label": {}}, "label steps: null is not a list."),
    ],
)
def test_a_bad_row_is_named(imported: Any, wrong: dict[str, Any], message: str) -> None:
    loaded = imported("prm800k", [native(*GOOD), wrong])
    assert str(loaded.problems[0]).startswith(f"native.jsonl:2 {message}")
    assert len(loaded.records) == 1
