"""The example of Math-Shepherd's card, and what can be wrong with a row; TRL's stepwise columns stay what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grainline.data.load import read

PROBLEM = "Buzz shares 78 slices in the ratio of 5:8. Twenty less than the number of slices that the waiter ate?"
STEPS = ["Step 1: The ratio is 5+8 = <<5+8=13>>13.", "Step 2: The waiter ate 78 x 8 = 600 - 4.", "The answer is: 28"]


def native(signs: str, *, problem: str = PROBLEM, steps: list[str] = STEPS) -> dict[str, Any]:
    tagged = f"{problem} " + "\n".join(f"{step} ки" for step in steps)
    label = f"{problem} " + "\n".join(f"{step} {sign}" for step, sign in zip(steps, signs, strict=True))
    return {"input": tagged, "label": label, "task": "GSM8K"}


def test_signs_become_labels_of_steps(imported: Any) -> None:
    one, other = imported("math-shepherd", [native("+--"), native("+++")]).records
    (answer,) = one.answers
    assert one.prompt == ({"role": "user", "content": PROBLEM},)
    assert [answer.text[span.start : span.stop] for span in answer.spans] == STEPS
    assert [(span.aspect, span.score) for span in answer.spans] == [
        ("correctness", 1.0), ("correctness", 0.0), ("correctness", 0.0),
    ]  # fmt: skip
    assert (one.label, other.label) == (False, True)


def test_where_the_problem_ends(imported: Any) -> None:
    plain = native("+", problem="How much is 2+2?", steps=["It is 4."])
    twice = native("+", problem='After "step 1: mix", what is next?', steps=["step 1: Bake."])
    records = imported("math-shepherd", [plain, twice]).records
    assert [(r.prompt[0]["content"], r.answers[0].text) for r in records] == [
        ("How much is 2+2?", "It is 4."), ('After "step 1: mix", what is next?', "step 1: Bake."),
    ]  # fmt: skip


def test_bad_rows_are_named(imported: Any) -> None:
    good = native("+-+")
    inside = {"input": "Find ки x. Step 1: x = 2. ки", "label": "Find + x. Step 1: x = 2. +", "task": "MATH"}
    bad = [
        good | {"label": good["label"].replace("+", "ки +")},
        good | {"input": good["input"] + " and more"},
        inside,
        good | {"label": None},
    ]
    assert [str(problem).partition(": ")[::2] for problem in imported("math-shepherd", bad).problems] == [
        ("native.jsonl:1 label", "it is not the input with + or - in place of each 'ки': they part ways at tag 1."),
        ("native.jsonl:2 input", "the text does not end with the tag 'ки'."),
        ("native.jsonl:3 input", "it does not say where the problem ends: no 'Step 1:' before the first tag."),
        ("native.jsonl:4 label", "null is not text."),
    ]


def test_trls_stepwise_rows_are_read_as_they_are(tmp_path: Path, imported: Any) -> None:
    row = {"prompt": [{"role": "user", "content": PROBLEM}], "completions": STEPS, "labels": [True, False, False]}
    (tmp_path / "trl.jsonl").write_text(json.dumps(row) + "\n")
    assert read(tmp_path / "trl.jsonl").digest == imported("math-shepherd", [native("+--")]).digest
