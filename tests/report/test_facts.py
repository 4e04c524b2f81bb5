"""Before and after, aspects, cost, origin."""

from __future__ import annotations

import json

import pytest

from _runs import Make, lines, step
from grainline.report import facts, read


def test_sets_are_told_apart_whatever_they_are_called() -> None:
    line = {"eval_a_rows": 1.0, "eval_a_b_rows": 2.0, "eval_a_b_loss": 3.0, "eval_a_loss": 4.0, "loss": 5.0}
    assert facts.by_set(line) == {"a": {"rows": 1.0, "loss": 4.0}, "a_b": {"rows": 2.0, "loss": 3.0}}


def test_before_and_after(make: Make) -> None:
    rows = {row.metric: row for row in facts.changes(read.run(make()), "test")}
    assert next(iter(rows)) == "rewards/accuracies"
    assert rows["rewards/accuracies"][2:] == ("0.500", "0.800 [0.700, 0.900]", "+0.300")
    assert rows["logps/chosen_per_token"][2:] == ("−3.000", "−2.700", "+0.300")
    assert rows["logps/rejected"][2:] == ("−280.0", "−310.0", "−30.00")
    assert not {"rows", "rewards/clear/margins", "rewards/accuracies_low"} & rows.keys()


def test_an_unfinished_run_is_judged_by_its_last_look(make: Make) -> None:
    files = read.run(make(results_json=None))
    assert facts.after(files)["test"]["rewards/accuracies"] == 0.8


def test_aspects(make: Make) -> None:
    (found,) = facts.aspects(read.run(make()), "test")
    assert found.name == "clear"
    assert (found.before["margin"], found.after["margin"]) == (0.0, pytest.approx(0.6))
    assert found.after["margin_low"] == pytest.approx(0.3)


def test_aspects_in_training_where_nothing_was_held_out(make: Make) -> None:
    (found,) = facts.aspects(read.run(make(metrics_jsonl=lines(map(step, range(1, 31))))), "")
    assert found.before["margin"] == pytest.approx(5.5 / 30)  # mean of 1..10, over 30
    assert found.after["margin"] == pytest.approx(25.5 / 30)


def test_cost(make: Make) -> None:
    assert facts.cost(read.run(make())) == {
        "Training steps": "30",
        "Time of training": "1 min 0 s",
        "Seconds a step": "2.00",
        "Tokens a second": "50",  # 3,000 tokens in 60 s
        "Tokens": "3,000",
        "Rows": "240",
        "Most memory held, by the process": "1.2 GB",
        "Trainable parameters": "4,096",
        "Size of the weights": "1.5 kB",
    }


def test_a_resumed_clock_begins_again(make: Make) -> None:
    clock = [1.0, 2.0, 0.5, 1.5]
    text = "".join(json.dumps({"step": i, "loss": 1.0, "seconds": s}) + "\n" for i, s in enumerate(clock, start=1))
    assert facts.seconds(read.run(make(metrics_jsonl=text))) == 3.5  # 2.0 before, 1.5 after


def test_provenance_and_choices(make: Make) -> None:
    files = read.run(make())
    found = facts.provenance(files)
    assert found["Processor"] == "Abacus"
    assert found["Data, pairs.jsonl"] == f"50 rows, SHA-256 {'cd' * 32}"
    assert found["Held out, test"].endswith("ef" * 32)
    assert (found["torch"], found["Seed"]) == ("2.9.0", "3")
    assert facts.choices(files)["Objective"] == "dpo:beta=0.2 + 0.1*sft"


def test_the_command_is_one_a_shell_understands(make: Make) -> None:
    files = read.run(make("a run; rm -rf x"))
    assert facts.repeat(files)[0] == f"grainline replay '{files.folder}'"


@pytest.mark.parametrize("value", [None, 3, "x", [], [3], {}, {"train": 3, "evaluation": 4}, {"train": [None]}])
def test_provenance_of_any_shape(value: object, make: Make) -> None:
    for text in ({"data": value, "versions": value, "machine": value, "run": value}, {"model": value}):
        facts.provenance(read.run(make(f"r{len(text)}", provenance_json=json.dumps(text))))
