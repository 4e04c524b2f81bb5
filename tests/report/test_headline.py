"""The sentence, and what to do next."""

from __future__ import annotations

import json

import pytest

import _evaluations
from _runs import RECIPE, Make, lines, look, step
from grainline.report import headline, read


def said(
    make: Make, after: dict[str, float], before: dict[str, float] | None = None, **files: object
) -> headline.Headline:
    log = lines([before or look(0, 0.5), *map(step, range(1, 31)), after])
    return headline.one(read.run(make(metrics_jsonl=log, results_json=json.dumps(after), **files)))


def test_better(make: Make) -> None:
    found = said(make, look(30, 0.8))
    assert found.verdict == "better"
    assert found.sentence == (
        "Held-out accuracy rose from 0.50 to 0.80 [0.70, 0.90] on 40 pairs of test; "
        "the likelihood of chosen answers rose by 0.30 nats a token."
    )
    assert "grainline export" in found.next[-1]


def test_worse_and_displaced(make: Make) -> None:
    found = said(make, look(30, 0.3, **{"logps/chosen_per_token": -3.5}))
    assert found.verdict == "worse"
    assert "fell from 0.50 to 0.30 [0.20, 0.40]" in found.sentence
    assert "the likelihood of chosen answers fell by 0.50 nats a token" in found.sentence
    assert any("less likely" in line for line in found.next)
    assert any("far above the held-out interval" in line for line in found.next)  # 0.75 in training


def test_unclear(make: Make) -> None:
    found = said(make, look(30, 0.55, **{"logps/chosen_per_token": -3.001}))
    assert found.verdict == "unclear"
    assert "has not clearly changed: 0.50 before, 0.55 [0.45, 0.65] after" in found.sentence
    assert "hardly changed" in found.sentence


def test_not_measured(make: Make) -> None:
    found = headline.one(read.run(make(metrics_jsonl=lines(map(step, range(1, 31))), results_json='{"step": 30}')))
    assert found.verdict == "not measured"
    first, last = (sum(1 / n for n in steps) / 10 for steps in (range(1, 11), range(21, 31)))
    assert found.sentence.startswith(f"In 30 steps the loss fell from {first:.3f} to {last:.3f} (means of 10 steps)")
    assert "grainline evaluate" in found.next[0]


def test_not_begun_and_not_finished(make: Make) -> None:
    found = headline.one(read.run(make(metrics_jsonl=None, results_json=None)))
    assert "not come to its first step" in found.sentence
    found = headline.one(read.run(make("second", metrics_jsonl=lines([look(0, 0.5), step(1)]), results_json=None)))
    assert found.sentence.startswith("In 1 step the loss stayed")
    assert "step 1 of 30" in found.next[0]
    assert "--resume" in found.next[0]


def test_labelled_rows(make: Make) -> None:
    metrics = [{"step": s, "eval_test_logps/answer_per_token": -3.0 + s, "eval_test_rows": 9.0} for s in (0, 1)]
    found = said(make, metrics[1], metrics[0])
    assert (found.verdict, found.sentence) == ("better", "The likelihood of answers rose by 1.00 nats a token.")


def test_warnings_come_first(make: Make) -> None:
    found = said(make, look(30, 0.8), warnings_jsonl='{"seen": "Odd.", "instead": "Look.", "step": 3}\n')
    assert found.next[0] == "Read the warnings first: there are 1."


def test_what_was_measured_later_is_a_verdict_too(make: Make) -> None:
    run = make(metrics_jsonl=lines(map(step, range(1, 31))), results_json='{"step": 30}')
    _evaluations.write(run)
    found = headline.one(read.run(run))
    assert found.verdict == "not compared"
    assert found.sentence == (
        "Held-out accuracy is 0.88 [0.55, 0.95] on 24 pairs of test, above chance; before training it was not measured."
    )


@pytest.mark.parametrize(("low", "verdict"), [(0.02, "better"), (-0.02, "unclear")])
def test_row_by_row_two_runs_that_look_alike_may_differ(low: float, verdict: str, make: Make) -> None:
    """Intervals that touch say less than differences on the same rows."""
    facts = _evaluations.facts() | {"against": {"kind": "run", "name": "a"}}
    bounds = {"against/rewards/accuracies_low": low, "against/rewards/accuracies_high": 0.08}
    facts["metrics"] = {"against/rewards/accuracies": 0.05, **bounds}
    one, two = make("a"), make("b", results_json=json.dumps(look(30, 0.85)))
    _evaluations.write(two, facts_json=json.dumps(facts))
    found = headline.several(read.runs([one, two]))
    assert found.verdict == verdict
    assert found.sentence.startswith(f"On the same rows b has an accuracy that is 0.05 [{low:.2f}".replace("-", "−"))


def test_row_by_row_the_other_may_be_ahead(make: Make) -> None:
    facts = _evaluations.facts() | {"against": {"kind": "run", "name": "a"}}
    name = "against/rewards/accuracies"
    facts["metrics"] = {name: -0.05, f"{name}_low": -0.08, f"{name}_high": -0.02}
    one, two = make("a"), make("b", results_json=json.dumps(look(30, 0.85)))
    _evaluations.write(two, facts_json=json.dumps(facts))
    found = headline.several(read.runs([one, two]))
    assert found.sentence == "On the same rows a has an accuracy that is 0.05 [0.02, 0.08] above that of b."
    assert found.verdict == "better"


@pytest.mark.parametrize(
    ("other", "verdict", "part"),
    [(0.2, "better", "do not touch"), (0.75, "unclear", "too close to call"), (0.8, "unclear", "the same held-out")],
)
def test_which_of_two(other: float, verdict: str, part: str, make: Make) -> None:
    found = headline.several(read.runs([make("a"), make("b", results_json=json.dumps(look(30, other)))]))
    assert found.verdict == verdict
    assert part in found.sentence


@pytest.mark.parametrize("same", [True, False])
def test_runs_that_were_only_measured_later_compare(same: bool, make: Make) -> None:
    """Nobody looked while they trained; afterwards both were measured, on the same rows or on others."""
    found = []
    for name, accuracy in (("a", 0.9), ("b", 0.6)):
        run = make(name, metrics_jsonl=lines(map(step, range(1, 31))), results_json='{"step": 30}')
        metrics = {"rewards/accuracies": accuracy}
        metrics |= {"rewards/accuracies_low": accuracy - 0.05, "rewards/accuracies_high": accuracy + 0.05}
        data = {"digest": "same" if same else name, "rows": 24}
        _evaluations.write(run, facts_json=json.dumps(_evaluations.facts() | {"metrics": metrics, "data": data}))
        found.append(run)
    said = headline.several(read.runs(found))
    assert said.verdict == ("better" if same else "unclear")
    assert ("a has the highest held-out accuracy, 0.90" if same else "different held-out rows") in said.sentence


@pytest.mark.parametrize("unknown", [["a"], ["a", "b"]])
def test_rows_of_which_nothing_is_known_are_not_the_same(unknown: list[str], make: Make) -> None:
    """Runs without provenance, or copied without it: two that say nothing do not say the same."""
    files = {"a": {}, "b": {"results_json": json.dumps(look(30, 0.2))}}
    folders = [
        make(name, **more, **({"provenance_json": "{}"} if name in unknown else {})) for name, more in files.items()
    ]
    found = headline.several(read.runs(folders))
    assert found.verdict == "unclear"
    assert found.sentence.startswith("It is not known whether the runs were measured on the same held-out rows")
    assert "grainline evaluate" in found.next[0]


def test_without_an_accuracy_nothing_is_compared(make: Make) -> None:
    bare = make("c", metrics_jsonl=None, results_json=None, recipe_yaml=RECIPE)
    assert "fewer than two" in headline.several(read.runs([make("d"), bare])).sentence
