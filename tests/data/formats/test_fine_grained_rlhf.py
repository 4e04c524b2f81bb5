"""A row in the shape of allenai/FineGrainedRLHF's dev_feedback.json, and shared rows taken back to that shape."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from grainline.data import files
from grainline.data.formats import converted
from grainline.data.load import read
from grainline.types import Span

PASSAGES = [["Bloom (album)", "Bloom (album)\n\nBloom is an album.", "It came in 2018."], ["Bloom", "A song, too."]]


def error(start: int, end: int, kind: str) -> dict[str, Any]:
    return {"error type": kind, "explanation": "", "start": start, "end": end}


def native(prediction: str, corrected: str, *errors: Any) -> dict[str, Any]:
    missing = [{"error type": "Missing-Answer", "passage_id": 1, "sentence_id": [3]}]
    feedback = {"errors": list(errors), "missing-info": missing, "corrected-prediction": corrected}
    others = {f"prediction {n}": f"Something else {n}." for n in (2, 3, 4)}
    return {"question": "When?", "passages": PASSAGES, "gold": "2018", "prediction 1": prediction, **others,
            "feedback": feedback, "preference": [0, 1, 2, 1, 0, 2]}  # fmt: skip


def test_errors_become_spans_of_the_rejected_answer(imported: Any) -> None:
    said = "Bloom came in 2017. It is good. It is good."
    errors = [error(32, 43, "Redundant"), error(14, 18, "Wrong-Grounding")]
    loaded = imported("fine-grained-rlhf", [native(said, "Bloom came in 2018. ", *errors)])
    chosen, rejected = loaded.records[0].answers
    assert (chosen.text, chosen.spans) == ("Bloom came in 2018.", ())
    assert rejected.text == said
    assert rejected.spans == (Span(14, 18, "factuality", 0.0), Span(32, 43, "relevance", 0.0))
    assert loaded.records[0].prompt[0]["content"] == (
        "Answer the question from the passages.\n\nBloom (album)\n\nBloom is an album.\nIt came in 2018.\n\n"
        "A song, too.\n\nQuestion: When?"
    )


def test_what_was_right_or_useless_is_counted(imported: Any) -> None:
    kept, gone = native("In 2018.", "In 2018. "), native("In 2017.", "", error(0, 8, "Unverifiable"))
    loaded = imported("fine-grained-rlhf", [kept, native("In 2017.", "In 2018."), gone])
    assert len(loaded.records) == 1
    assert loaded.passed_over == {"answers that needed no correction": 1, "answers of which nothing was left": 1}


def test_bad_rows_are_named(imported: Any) -> None:
    bad = [
        native("In 2017.", "In 2018.", error(0, 9, "Redundant")),
        native("In 2017.", "In 2018.", error(0, 8, "Redundnt")),
        native("In 2017.", "In 2018.", error(0, 8, "Redundant") | {"start": None}),
        native("In 2017.", "In 2018.") | {"passages": ["Bloom"]},
        native("In 2017.", "In 2018.") | {"feedback": None},
    ]
    messages = [str(problem) for problem in imported("fine-grained-rlhf", bad).problems]
    assert messages[0] == "native.jsonl:1 rejected_spans[0]: end 9 is outside the answer, which has 8 characters."
    assert messages[1].startswith(
        "native.jsonl:2 feedback errors[0]: unknown error type 'Redundnt'. Did you mean 'Redundant'?"
    )
    assert messages[2:] == [
        "native.jsonl:3 feedback errors[0]: start and end must be whole numbers of characters.",
        "native.jsonl:4 passages[0]: the passage is not a title and sentences.",
        "native.jsonl:5 feedback: null is not an object.",
    ]


@pytest.mark.real
def test_shared_rows_come_back(shared_data: Path) -> None:
    """The shared files were made from the native one, by other code."""
    with gzip.open(shared_data / "qa_feedback" / "spans_train.jsonl.gz", "rt") as lines:
        shared = [json.loads(line) for line in lines]
    natives = []
    for row in shared:
        passages, question = row["prompt"][0]["content"].rsplit("\n\nQuestion: ", 1)
        sentences = passages.removeprefix("Answer the question from the passages.\n\n").split("\n")
        errors = [error(span["start"], span["end"], span["type"]) for span in row["rejected_spans"]]
        made = native(row["rejected"], row["chosen"] + " ", *errors[::-1])
        made["feedback"]["missing-info"] = [{"error type": kind} for kind in row["missing_info"]]
        natives.append(made | {"question": question, "passages": [["Title", *sentences]]})
    fields = ("prompt", "chosen", "rejected", "rejected_spans", "missing_info")
    rows = list(converted("fine-grained-rlhf", files.rows(natives, split="train")[1]))
    assert [row.row for row in rows] == [{name: row[name] for name in fields} for row in shared]
    loaded = read(natives, format="fine-grained-rlhf")
    assert loaded.digest == read(shared_data / "qa_feedback", split="spans_train").digest
