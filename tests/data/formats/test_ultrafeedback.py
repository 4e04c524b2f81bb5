"""Rows as openbmb/UltraFeedback publishes them (the shape is that of the authors' README); the words are ours."""

from __future__ import annotations

from typing import Any

from grainline.data.formats import ultrafeedback
from grainline.types import Span


def completion(response: str, *ratings: Any) -> dict[str, Any]:
    judged = {a: {"Rating": r, "Rationale": "..."} for a, r in zip(ultrafeedback.ASPECTS, ratings, strict=True)}
    return {"model": "gpt-4", "principle": "honesty", "custom_system_prompt": "Be honest.", "response": response,
            "annotations": judged, "critique": "...", "overall_score": 7.5, "fine-grained_score": 3.0}  # fmt: skip


def native(*completions: Any, instruction: str = "What to see in Cairo?") -> dict[str, Any]:
    return {"source": "sharegpt", "instruction": instruction, "models": ["a", "b"], "completions": list(completions),
            "correct_answers": ["None"], "incorrect_answers": ["None"]}  # fmt: skip


def test_the_best_mean_meets_one_below_it(imported: Any) -> None:
    answers = [
        completion("Nothing.", "1", "2", "1", "1"),
        completion("The pyramids.", "5", "4", "5", "4"),
        completion("The museum.", "4", "5", "4", "4"),
        completion("Everything, certainly.", "5", "N/A", "5", "5"),
    ]
    loaded = imported("ultrafeedback", [native(*answers)])
    chosen, rejected = loaded.records[0].answers
    assert chosen.text == "The pyramids."
    assert chosen.spans == tuple(
        Span(0, 13, a, (n - 1) / 4) for a, n in zip(ultrafeedback.ASPECTS, (5, 4, 5, 4), strict=True)
    )
    rated, mean = {"Nothing.": ((1, 2, 1, 1), 1.25), "The museum.": ((4, 5, 4, 4), 4.25)}[rejected.text]
    assert [span.score for span in rejected.spans] == [(n - 1) / 4 for n in rated]
    assert loaded.records[0].margin == 4.5 - mean


def test_the_rejected_one_hangs_on_the_prompt_alone(imported: Any) -> None:
    answers = [completion(f"Answer {n}.", *[n] * 4) for n in (5, 4, 3, 2)]
    rows = [native(*answers, instruction=f"Question {n}?") for n in range(40)]
    rejected = [record.answers[1].text for record in imported("ultrafeedback", rows).records]
    assert [record.answers[1].text for record in imported("ultrafeedback", rows[::-1]).records][::-1] == rejected
    assert set(rejected) == {"Answer 4.", "Answer 3.", "Answer 2."}


def test_what_cannot_be_compared_is_counted(imported: Any) -> None:
    fine = completion("Yes.", "4", "4", "4", "4")
    loaded = imported(
        "ultrafeedback",
        [
            native(fine, completion("No.", "4", "4", "4", "4")),
            native(fine, completion("No.", "4", "N/A", "4", "4"), completion("", "1", "1", "1", "1")),
            native(fine, completion("No.", None, "4", "4", "4"), {"response": "Hm.", "annotations": None}),
            native(fine, completion("No.", "3", "4", "4", "4")),
        ],
    )
    assert len(loaded.records) == 1
    assert loaded.passed_over == {"ties": 1, "rows with fewer than two answers that are rated in full": 2}


def test_bad_rows_are_named(imported: Any) -> None:
    fine = completion("Yes.", "4", "4", "4", "4")
    bad = [
        native(fine, completion("No.", "4", "good", "4", "4")),
        native(fine, completion("No.", "4", "4", "6", "4")),
        native(fine, {"annotations": {}}),
        native(fine) | {"completions": "No."},
        native(fine, fine) | {"instruction": None},
    ]
    assert [str(problem) for problem in imported("ultrafeedback", bad).problems] == [
        'native.jsonl:1 completions[1] honesty: \'good\' (str) is no rating. Write "1" to "5", or N/A.',
        "native.jsonl:2 completions[1] truthfulness Rating: 6 is not on the scale from 1 to 5.",
        "native.jsonl:3 completions[1] response: null is not text.",
        "native.jsonl:4 completions: 'No.' (str) is not a list.",
        "native.jsonl:5 instruction: null is not text.",
    ]
