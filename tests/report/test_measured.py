"""What evaluate wrote: read whole, or the damage named."""

from __future__ import annotations

import json
from typing import Any

import pytest

import _evaluations
from _runs import Make, lines
from grainline.errors import RunError
from grainline.report import measured


def test_a_whole_evaluation(make: Make) -> None:
    run = make()
    _evaluations.write(run)
    _evaluations.write(run, "again", tokens_jsonl=None, samples_jsonl=None)
    again, found = measured.evaluations(run)
    assert (again.name, again.tokens, again.samples) == ("again", [], [])
    assert (len(found.rows), len(found.tokens), len(found.samples)) == (_evaluations.PAIRS, 3, 2)
    assert found.table("forgetting", "tasks")[0]["task"] == "arc_easy"
    assert found.table("forgetting", "nothing") == found.table("nothing", "tasks") == ()
    assert found.against == ""
    families = {**found.facts["families"], "preference": {"against": {"kind": "run", "name": "first"}}}
    later = {**found.facts, "against": {"kind": "run", "name": "second"}, "families": families}
    assert found._replace(facts=later).against == "first"  # answers were compared with the second


def test_what_is_not_known_is_left_out(make: Make) -> None:
    run = make()
    _evaluations.write(run)
    (found,) = measured.evaluations(run)
    assert "displacement/unknown" in _evaluations.facts()["metrics"]
    assert "displacement/unknown" not in found.metrics


def test_a_run_that_nobody_measured(make: Make) -> None:
    assert measured.evaluations(make()) == []


def changed(**more: Any) -> str:
    return json.dumps(_evaluations.facts() | more)


def pair(**more: Any) -> str:
    one = _evaluations.tokens(_evaluations.rows()[0])
    one["answers"][0] |= more
    return lines([one, one])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("facts.json", "{", "facts.json: unreadable"),
        ("facts.json", "[]", "facts.json: not an object"),
        ("facts.json", changed(format=2), "format 2, and 1 is read here"),
        ("facts.json", changed(metrics=[]), "no metrics"),
        ("facts.json", changed(metrics={"a": "b"}), "a is not a number"),
        ("facts.json", changed(metrics={"a": 10**400}), "a is not a number"),
        ("facts.json", changed(families={"x": 3}), "x: not an object"),
        ("facts.json", changed(families={"x": {"figures": {"a": True}}}), "x: a is not a number"),
        ("facts.json", changed(families={"x": {"tables": {"t": [3]}}}), "x: a table is not a list of rows"),
        ("facts.json", changed(families={"x": {"notes": "a"}}), "x: notes are not sentences"),
        ("rows.jsonl", '{"a": "b"}\n{"margin": [1]}\n', "rows.jsonl:2: margin is not a number"),
        ("rows.jsonl", '{"chosen": {"tokens": 2, "policy": [1.0]}}\n', "policy has not one number a token"),
        ("tokens.jsonl", '{"id": 3}\n', "tokens.jsonl:1: there are no answers"),
        ("tokens.jsonl", pair(tokens=[1, 2]), "tokens are not texts"),
        ("tokens.jsonl", pair(kl=[0.5]), "kl has not one number a token"),
        ("tokens.jsonl", pair(segments=["a"]), "segments are not objects"),
        ("samples.jsonl", '{"policy": 3}\n', "policy is not text"),
        ("samples.jsonl", '{"reference": "a"}\n', "there is no policy"),
    ],
)
def test_a_damaged_file_is_named(file: str, text: str, said: str, make: Make) -> None:
    run = make()
    folder = _evaluations.write(run)
    (folder / file).write_text(text)
    with pytest.raises(RunError) as caught:
        measured.evaluations(run)
    assert said in str(caught.value)
    assert file in str(caught.value)


def test_a_last_line_cut_short_is_passed_over(make: Make) -> None:
    run = make()
    _evaluations.write(run, rows_jsonl=lines(_evaluations.rows()) + '{"id": "m9')
    assert len(measured.evaluations(run)[0].rows) == _evaluations.PAIRS
