"""Several runs beside each other."""

from __future__ import annotations

import json

import _evaluations
from _runs import RECIPE, Make
from grainline.report import read, side_by_side


def test_figures(make: Make) -> None:
    rows = dict(side_by_side.compared(read.runs([make("a"), make("b", results_json=None, metrics_jsonl=None)])))
    assert rows["Accuracy"] == ["0.800 [0.700, 0.900]", "–"]
    assert rows["Change of it since the start"] == ["+0.300", "–"]
    assert rows["Tokens a second"] == ["50", "–"]
    assert rows["Held out"] == ["test, 40 rows", "–"]


def test_what_recipes_do_differently(make: Make) -> None:
    other = RECIPE.replace("lr=0.01", "lr=0.02").replace("out: runs/first", "out: elsewhere")
    found = side_by_side.differences(read.runs([make("a"), make("b", recipe_yaml=other)]))
    assert found == [("optimizer", ["adamw:lr=0.01", "adamw:lr=0.02"])]


def test_answers_to_one_prompt_stand_together(make: Make) -> None:
    text = json.dumps({"id": "a", "prompt": [{"role": "user", "content": "why?"}], "policy": "other"}) + "\n"
    (sample,) = side_by_side.samples(read.runs([make("a"), make("b", samples_jsonl=text)]))
    assert sample.turns == [("user", "why?")]
    assert sample.answers == [("reference", "thus"), ("a", "so"), ("b", "other")]


def test_whom_the_judge_compared_with_is_said(make: Make) -> None:
    run = make()
    drawn = {"id": "a", "prompt": "why?", "policy": "so", "reference": "thus", "win": 0.75}
    _evaluations.write(run, samples_jsonl=json.dumps(drawn) + "\n" + json.dumps(drawn | {"id": "b", "against": "as"}))
    one, other = (sample.answers[1][0] for sample in side_by_side.samples(read.runs([run])))
    assert one == "policy (the judge: better with 0.75)"
    assert other == "policy (the judge: better than the other run's with 0.75)"


def test_prompts_of_any_shape(make: Make) -> None:
    prompts = ["text", None, 3, [], [3], [{"role": None}], [{"content": [{"type": "text", "text": "x"}]}], {"a": 1}]
    text = "".join(json.dumps({"prompt": prompt, "policy": ""}) + "\n" for prompt in prompts)
    assert len(side_by_side.samples(read.runs([make(samples_jsonl=text)]))) == len(prompts)


def test_aspects_of_several(make: Make) -> None:
    groups, title, _ = side_by_side.aspect_groups(read.runs([make("a"), make("b")]))
    assert ([name for name, _ in groups], title) == (["a", "b"], "After training")
    groups, title, _ = side_by_side.aspect_groups(read.runs([make("c")]))
    assert [name for name, _ in groups] == ["before", "after"]
    assert title.startswith("Held out: test")
