"""What the template is filled with."""

from __future__ import annotations

import json

from _runs import Make, lines
from grainline.report import read, view


def sample(policy: str, reference: str | None) -> str:
    more = {} if reference is None else {"reference": reference}
    return lines([{"id": "a", "prompt": "why?", "policy": policy, **more}])


def answers(make: Make, policy: str, reference: str | None) -> list[dict[str, object]]:
    shown = view.view(read.runs([make(samples_jsonl=sample(policy, reference))]))
    return shown["samples"][0]["answers"]  # type: ignore[no-any-return]


def test_words_that_differ_are_marked_in_both(make: Make) -> None:
    reference, policy = answers(make, "so it was", "so it is")
    assert [(part.text, part.differs) for part in reference["parts"]] == [("so it ", False), ("is", True)]
    assert [(part.text, part.differs) for part in policy["parts"]] == [("so it ", False), ("was", True)]
    assert (reference["tag"], policy["tag"]) == ("del", "ins")


def test_one_voice_alone_is_not_marked(make: Make) -> None:
    (policy,) = answers(make, "so", None)
    assert (policy["parts"], policy["text"]) == ([], "so")


def test_two_runs_are_not_marked(make: Make) -> None:
    files = read.runs([make("a"), make("b")])
    assert not view.view(files)["marked"]


def test_the_same_answer_says_so(make: Make) -> None:
    assert answers(make, "so", "so")[1]["remark"] == "the same"


def test_sections_are_those_that_are_there(make: Make) -> None:
    bare = make("bare", **dict.fromkeys(("metrics_jsonl", "results_json", "samples_jsonl", "provenance_json")))
    assert [key for key, _ in view.view(read.runs([bare]))["sections"]] == [
        "curves", "samples", "cost", "recipe", "provenance",
    ]  # fmt: skip
    assert [key for key, _ in view.view(read.runs([make()]))["sections"]] == [
        "change", "curves", "aspects", "samples", "cost", "recipe", "provenance",
    ]  # fmt: skip
    warned = make("warned", warnings_jsonl=json.dumps({"seen": "Odd.", "instead": "Look."}) + "\n")
    assert view.view(read.runs([warned]))["sections"][0] == ("warnings", "Warnings")
