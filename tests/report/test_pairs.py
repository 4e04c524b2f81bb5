"""tokens.jsonl as pairs to shade."""

from __future__ import annotations

import json
import re

import _evaluations
from _runs import Make, lines
from grainline.report import pairs, read, words


def test_every_figure_is_that_of_the_file(make: Make) -> None:
    run = make()
    _evaluations.write(run)
    heat = pairs.heat_of([read.run(run)])
    assert heat is not None
    slots = {choice["title"]: choice["slot"] for choice in heat["choices"]}
    assert slots == {"Reward": "a", "Weight": "b", "KL": "c"}
    for row, pair in zip(_evaluations.rows(), heat["pairs"], strict=False):
        for role, side in zip(("chosen", "rejected"), pair["runs"][0]["sides"], strict=True):
            answer = row[role]
            rewards = [0.1 * (p - r) for p, r in zip(answer["policy"], answer["reference"], strict=True)]
            assert re.findall(r'data-a="([^"]*)"', str(side["tokens"])) == [words.signed(value) for value in rewards]
            assert re.findall(r'data-c="([^"]*)"', str(side["tokens"])) == [words.number(v) for v in answer["kl"]]
            assert side["note"] == f"{answer['tokens']} tokens, reward {words.signed(sum(rewards))}"
        assert pair["runs"][0]["title"].startswith(f"{row['id']}: margin {words.signed(row['rewards/margins'])}")


def test_segments_say_their_score_and_aspects(make: Make) -> None:
    run = make()
    _evaluations.write(run)
    heat = pairs.heat_of([read.run(run)])
    assert heat is not None
    assert heat["pairs"][0]["runs"][0]["sides"][0]["segments"] == [
        "Segment 1, score 0.25: clear 0.50",
        "Segment 2, score 1.00: clear 1.00, safe 0.75",
    ]


def test_weights_below_zero_have_a_scale_on_both_sides(make: Make) -> None:
    run, row = make(), _evaluations.tokens(_evaluations.rows()[0])
    row["answers"][0]["weight"][0] = -1.0
    row["margin"] = None
    _evaluations.write(run, tokens_jsonl=lines([row]))
    heat = pairs.heat_of([read.run(run)])
    assert heat is not None
    weight = next(choice for choice in heat["choices"] if choice["title"] == "Weight")
    assert weight["scale"][0] == ("n4", "−1.00")
    assert heat["pairs"][0]["runs"][0]["title"] == "m0: one answer"


def test_without_tokens_there_is_nothing_to_shade(make: Make) -> None:
    run = make()
    assert pairs.heat_of([read.run(run)]) is None
    _evaluations.write(run, tokens_jsonl=None)
    assert pairs.heat_of([read.run(run)]) is None


def test_of_several_runs_the_same_row_has_one_place(make: Make) -> None:
    first, second, bare = make("a"), make("b"), make("c")
    _evaluations.write(first)
    _evaluations.write(second)
    heat = pairs.heat_of(read.runs([first, bare, second]))
    assert heat is not None
    assert heat["names"] == ["a", "b"]
    assert {tuple(run["number"] for run in pair["runs"]) for pair in heat["pairs"]} == {(1, 2)}
    unknown = [make("d"), make("e")]  # of which rows is not known: those of one name may be others
    for run in unknown:
        _evaluations.write(run, facts_json=json.dumps(_evaluations.facts() | {"data": {}}))
    heat = pairs.heat_of(read.runs(unknown))
    assert heat is not None
    assert {tuple(run["number"] for run in pair["runs"]) for pair in heat["pairs"]} == {(1,), (2,)}
