"""What speaks for an adapter and against it: only what its intervals carry."""

from __future__ import annotations

import json
import math

import _evaluations
from _runs import LINES, Make, lines, look, step
from grainline.report import evidence, read

BOUNDS = ("rewards/accuracies_low", "rewards/accuracies_high")


def kinds(make: Make, *marks: str, **files: object) -> list[str]:
    """The kinds of the reasons in whose text one of ``marks`` stands."""
    found = evidence.reasons(read.run(make(**files)))
    return [one.kind for one in found if any(mark in one.text for mark in marks)]


def after(line: dict[str, float]) -> dict[str, str]:
    return {"metrics_jsonl": lines([*LINES[:-1], line]), "results_json": json.dumps(line)}


def test_a_gain_speaks_for_it(make: Make) -> None:
    (one,) = (one for one in evidence.reasons(read.run(make())) if "held-out accuracy" in one.text)
    assert one == ("for", "held-out accuracy 0.80 [0.70, 0.90], 0.50 before")


def test_what_the_interval_does_not_carry_is_not_known(make: Make) -> None:
    assert kinds(make, "held-out accuracy", **after(look(30, 0.55))) == ["open"]


def test_a_loss_speaks_against_it(make: Make) -> None:
    files = after(look(30, 0.3, **{"logps/chosen_per_token": -3.5}))
    assert kinds(make, "held-out accuracy", "in training", **files) == ["against"] * 2


def test_a_change_of_likelihood_counts_where_it_has_an_interval(make: Make) -> None:
    run = make(**after(look(30, 0.3, **{"logps/chosen_per_token": -3.5})))
    assert [one.kind for one in evidence.reasons(read.run(run)) if "less likely" in one.text] == ["open"]
    facts = _evaluations.facts()
    name = "displacement/chosen_per_token"
    facts["metrics"] |= {name: -0.5, f"{name}_low": -0.6, f"{name}_high": -0.4}
    _evaluations.write(run, facts_json=json.dumps(facts))
    found = [one for one in evidence.reasons(read.run(run)) if "chosen answers" in one.text]
    assert found == [("against", "change of the chosen answers on test, nats a token: −0.50 [−0.60, −0.40]")]


def test_without_a_look_before_training_nothing_is_claimed(make: Make) -> None:
    run = make(metrics_jsonl=lines(map(step, range(1, 31))), results_json='{"step": 30}')
    _evaluations.write(run)
    (one,) = (one for one in evidence.reasons(read.run(run)) if "held-out accuracy" in one.text)
    assert one == ("open", "held-out accuracy 0.88 [0.55, 0.95]: before training nobody looked")


def test_few_pairs_are_said(make: Make) -> None:
    wide = look(30, 0.8, **{"rewards/accuracies_low": 0.6, "rewards/accuracies_high": 0.95})
    assert kinds(make, "0.35 wide", **after(wide)) == ["open"]


def test_an_interval_that_is_a_point_is_no_certainty(make: Make) -> None:
    assert kinds(make, "up to 0.07", **after(look(30, 1.0, **dict.fromkeys(BOUNDS, 1.0)))) == ["open"]


def test_where_nothing_was_measured_nothing_speaks_for_it(make: Make) -> None:
    files = read.run(make(metrics_jsonl=lines(map(step, range(1, 31))), results_json='{"step": 30}'))
    assert {one.kind for one in evidence.reasons(files)} == {"open"}


def test_one_seed_is_never_called_more(make: Make) -> None:
    assert kinds(make, "one run of one seed (3)") == ["open"]


def test_an_evaluation_adds_its_reasons(make: Make) -> None:
    run = make()
    _evaluations.write(run)
    found = {one.text: one.kind for one in evidence.reasons(read.run(run))}
    said = "accuracy by likelihood alone on test, so much above the reference's on the same pairs: 0.10 [0.05, 0.20]"
    assert found[said] == "for"
    assert found["perplexity of neutral text changed by 2.0 [−1.0, 4.1] % (more is worse)"] == "for"
    assert any(kind == "open" and "nobody judged" in text for text, kind in found.items())
    assert not any("forgotten" in text for text in found)


def forgetting(low: float, high: float) -> dict[str, object]:
    facts = _evaluations.facts()
    return facts | {"metrics": {"forgetting/change": 0.1, "forgetting/change_low": low, "forgetting/change_high": high}}


def test_what_was_forgotten_counts_by_its_interval(make: Make) -> None:
    cases = ("a", 0.01, 0.2, "against"), ("b", -0.1, 0.2, "open"), ("c", -0.1, 0.01, "for"), ("d", 0.01, 0.02, "for")
    for name, low, high, kind in cases:
        run = make(name)
        _evaluations.write(run, facts_json=json.dumps(forgetting(low, high)))
        assert [one.kind for one in evidence.reasons(read.run(run)) if "perplexity" in one.text] == [kind]


def test_a_rise_of_one_nat_a_token_is_e_times_the_perplexity(make: Make) -> None:
    run, facts = make(), _evaluations.facts()
    _evaluations.write(run, facts_json=json.dumps(facts | {"metrics": {"forgetting/change": 1.0}}))
    (one,) = (one for one in evidence.reasons(read.run(run)) if "perplexity" in one.text)
    assert f"changed by {100 * (math.e - 1):.0f} %" in one.text


def test_another_run_on_the_same_pairs(make: Make) -> None:
    run, facts = make(), _evaluations.facts()
    bounds = {"against/rewards/accuracies_low": -0.2, "against/rewards/accuracies_high": -0.05}
    facts |= {"against": {"kind": "run", "name": "old"}, "metrics": {"against/rewards/accuracies": -0.1, **bounds}}
    _evaluations.write(run, facts_json=json.dumps(facts))
    (one,) = (one for one in evidence.reasons(read.run(run)) if "than old" in one.text)
    assert one.kind == "against"


def test_warnings_speak_against_it(make: Make) -> None:
    assert kinds(make, "1 warning while", warnings_jsonl='{"seen": "Odd.", "instead": "Look."}\n') == ["against"]
