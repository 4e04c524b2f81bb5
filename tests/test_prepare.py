"""Data before any weight is loaded: what is read, mixed, marked, counted and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from _toy import Toy, jsonl, pairs
from grainline import recipe as recipes
from grainline.data.encode import COUNTS
from grainline.errors import DataError, RecipeError
from grainline.models import load_tokenizer
from grainline.prepare import Prepared, prepare, prepare_held_out
from grainline.recipe import HeldOutChoice


def prepared(toy: Toy, **choices: Any) -> Prepared:
    recipe = recipes.load({"model": toy.model, "data": toy.pairs} | choices)
    return prepare(recipe, load_tokenizer(recipe.model))


def test_rows_become_examples_in_order(toy: Toy) -> None:
    found = prepared(toy, evaluation={"data": {"test": toy.held_out}})
    assert len(found.train) == 40
    assert [example.record.id for example in found.train[:4]] == ["pairs:1", "pairs:2", "pairs:3", "m3"]
    assert len({example.prompt for example in found.train}) == 25
    assert list(found.held_out) == ["test"]
    assert len(found.held_out["test"]) == 16
    end = load_tokenizer(recipes.load({"model": toy.model, "data": toy.pairs}).model).eos_token_id
    assert all(answer.ids[-1] == end and end not in answer.ids[:-1] for e in found.train for answer in e.answers)


def test_counts_and_digests(toy: Toy) -> None:
    facts = prepared(toy, evaluation={"data": {"test": toy.held_out}}, max_length=24).facts
    assert facts["counts"].keys() == {*COUNTS, "left_out"}
    assert facts["counts"]["truncated_prompts"] > 0
    assert facts["evaluation"]["test"]["tokens"]["rows"] == facts["evaluation"]["test"]["rows"] == 16
    assert facts["train"][0]["digest"] == prepared(toy).facts["train"][0]["digest"]
    assert facts["train"][0]["digest"] != facts["evaluation"]["test"]["digest"]


def test_a_mixture(toy: Toy, tmp_path: Path) -> None:
    other = jsonl(tmp_path / "other.jsonl", pairs(6, prompts=6, seed=9))
    found = prepared(toy, data=[{"path": toy.pairs, "weight": 0.5}, {"path": other, "weight": 2}])
    assert len(found.train) == 20 + 12
    ids = [example.record.id for example in found.train]
    assert len(set(ids)) == len(ids)
    assert "other:1#2" in ids
    assert [source["rows"] for source in found.facts["train"]] == [40, 6]


def test_training_rows_are_curated_and_held_out_rows_are_not(toy: Toy) -> None:
    steps = ["dedupe:by=prompt,threshold=1", "segment"]
    found = prepared(toy, curate=steps, evaluation={"data": {"test": toy.held_out}})
    (train,) = found.facts["train"]
    assert len(found.train) == train["rows"] == 25  # one a prompt
    assert train["path"] == "pairs.jsonl, curated"
    assert train["curated"]["made"][0]["dropped"] == {"repeats another": 15}
    assert len(found.held_out["test"]) == 16
    assert prepared(toy, curate=steps).facts["train"] == found.facts["train"]


def test_each_source_is_curated_by_itself(toy: Toy, tmp_path: Path) -> None:
    other = jsonl(tmp_path / "other.jsonl", pairs(6, prompts=6, seed=9))
    found = prepared(toy, data=[toy.pairs, {"path": other, "weight": 2}], curate="filter:longest_prompt=1000")
    assert [source["rows"] for source in found.facts["train"]] == [40, 6]
    assert len(found.train) == 40 + 12


def test_supervision_marks_every_row(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "quiet.py").write_text(
        "from typing import ClassVar\nfrom grainline.types import spec\n\n@spec\nclass Quiet:\n"
        "    needs: ClassVar[frozenset[str]] = frozenset()\n"
        "    def __call__(self, example):\n"
        "        marked = tuple(a._replace(weight=(0.25,) * len(a.ids)) for a in example.answers)\n"
        "        return example._replace(answers=marked)\n"
    )
    found = prepared(toy, supervision=f"{tmp_path}/quiet.py", evaluation={"data": {"test": toy.held_out}})
    every = [*found.train, *found.held_out["test"]]
    assert {weight for example in every for answer in example.answers for weight in answer.weight} == {0.25}


def test_bad_rows_are_refused_or_counted(toy: Toy, tmp_path: Path) -> None:
    row = pairs(1, prompts=1, seed=0)[0]
    twins = {**row, "chosen": [{"role": "assistant", "content": "good " * 60 + "yes"}],
             "rejected": [{"role": "assistant", "content": "good " * 60 + "no"}]}  # fmt: skip
    data = jsonl(tmp_path / "bad.jsonl", [row, {"chosen": "x"}, twins])
    with pytest.raises(DataError, match=r"1 of 3 rows cannot be used: bad\.jsonl:2"):
        prepared(toy, data=data)
    with pytest.raises(DataError, match="1 of 2 rows cannot be used"):  # nor the ones that are bad once cut
        prepared(toy, data=jsonl(tmp_path / "twins.jsonl", [row, twins]), max_length=48)
    facts = prepared(toy, data=data, skip_bad_rows=True, max_length=48).facts
    assert facts["counts"]["left_out"] == 2
    assert facts["counts"]["rows"] == 1
    assert len(facts["train"][0]["left_out"]) == 1


def test_what_an_objective_needs(toy: Toy) -> None:
    with pytest.raises(RecipeError, match=r"objective: dpo needs pairs.*labelled\.jsonl:1"):
        prepared(toy, data=toy.labelled)
    with pytest.raises(RecipeError, match=r"objective: dpo needs pairs.*labelled\.jsonl:1"):
        prepared(toy, evaluation={"data": {"l": toy.labelled}})


def test_an_objective_that_only_imitates_sees_what_is_desirable(toy: Toy, tmp_path: Path) -> None:
    train = prepared(toy, data=toy.labelled, objective="sft").train
    assert len(train) == 20
    assert all(example.record.label for example in train)
    assert len(prepared(toy, objective="sft").train) == 40  # of pairs, the chosen answers
    row = {"prompt": "why?", "completion": " because", "label": False}
    with pytest.raises(DataError, match="no answer is labelled desirable"):
        prepared(toy, data=jsonl(tmp_path / "none.jsonl", [row]), objective="sft")


def test_what_a_supervision_needs(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "spans.py").write_text(
        "from typing import ClassVar\nfrom grainline.types import spec\n\n@spec\nclass Spans:\n"
        "    needs: ClassVar[frozenset[str]] = frozenset({'spans'})\n"
        "    def __call__(self, example):\n        return example\n"
    )
    with pytest.raises(RecipeError, match="needs spans, no row has any"):
        prepared(toy, supervision=f"{tmp_path}/spans.py")
    row = {"prompt": "why?", "chosen": " a good answer", "rejected": " a bad answer"}
    data = jsonl(tmp_path / "spans.jsonl", [row | {"rejected_spans": [{"start": 3, "end": 6}]}])
    assert len(prepared(toy, supervision=f"{tmp_path}/spans.py", data=data).train) == 1


def test_what_an_objective_reads_of_every_training_row(toy: Toy, tmp_path: Path) -> None:
    rows = [row | {"uncertainty": 0.5} for row in pairs(4, prompts=4, seed=0)]
    choices: dict[str, Any] = {"objective": "updpo:uncertainty=pair", "evaluation": {"data": {"test": toy.held_out}}}
    found = prepared(toy, data=jsonl(tmp_path / "all.jsonl", rows), **choices)
    assert [dict(example.record.numbers)["uncertainty"] for example in found.train] == [0.5] * 4
    assert found.held_out["test"]  # measured without
    low = [row | {"uncertainty": -0.1} if i == 1 else row for i, row in enumerate(rows)]
    said = r"low\.jsonl:2: uncertainty is -0\.1; updpo:uncertainty=pair .*reads numbers from 0 on"
    for text in ("updpo:uncertainty=pair", "updpo:uncertainty=pair + 0.5*sft"):
        with pytest.raises(RecipeError, match=said):
            prepared(toy, data=jsonl(tmp_path / "low.jsonl", low), **choices | {"objective": text})
    del rows[2]["uncertainty"]
    rows[2]["uncertanty"] = 0.5
    said = r"some\.jsonl:3: .* reads a number from the column 'uncertainty', this row has none\. .*mean 'uncertanty'"
    with pytest.raises(RecipeError, match=said):
        prepared(toy, data=jsonl(tmp_path / "some.jsonl", rows), **choices)


@pytest.mark.parametrize("supervision", ["edits", "shared-length"])
def test_what_compares_both_answers_needs_pairs(toy: Toy, supervision: str) -> None:
    with pytest.raises(DataError, match=r"labelled\.jsonl:\d+: a labelled answer has no other to be compared with"):
        prepared(toy, data=toy.labelled, objective="sft", supervision=supervision)


def test_held_out_alone(toy: Toy) -> None:
    recipe = recipes.load({"model": toy.model, "data": "nowhere.jsonl"})
    sets = {"a": HeldOutChoice(path=toy.held_out)}
    examples, facts = prepare_held_out(recipe, sets, load_tokenizer(recipe.model))
    assert len(examples["a"]) == facts["a"]["rows"] == 16


def test_what_is_said(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipes.load({"model": toy.model, "data": toy.pairs, "max_length": 24})
    prepare(recipe, load_tokenizer(recipe.model), quiet=False)
    said = capsys.readouterr().err
    assert said.startswith("data: pairs.jsonl, 40 rows; ")
    assert "prompts shortened to fit 24 tokens" in said


# ------------------------------------------------------------------------------------------- segments, end to end

FINE = {
    "prompt": [{"role": "user", "content": "tell me of the sea"}],
    "chosen": "kind and warm. good song.",
    "rejected": "no never. bad door.",
    "chosen_spans": [{"start": 0, "end": 14, "aspect": "tone", "score": 4}],
    "rejected_spans": [{"start": 0, "end": 9, "aspect": "tone", "score": 1}],
    "score_range": [0, 4],
}
FLAGSHIP = {"supervision": "segments", "objective": "2d-dpo"}


def test_segments_and_scores_reach_the_examples(toy: Toy, tmp_path: Path) -> None:
    (found,) = prepared(toy, data=jsonl(tmp_path / "fine.jsonl", [FINE]), **FLAGSHIP).train
    assert [answer.score for answer in found.answers] == [(1.0, 0.5), (0.25, 0.5)]


@pytest.mark.parametrize(
    ("row", "choices", "message"),
    [
        (
            FINE,
            {"objective": "2d-dpo"},
            "2d-dpo needs segments, supervision=sequence makes none. Choose supervision=seg",
        ),
        (
            {"score_range": None},
            FLAGSHIP,
            "fine.jsonl:1: a span has score 4; segments reads 0 (wrong) to 1 (right). State",
        ),
        ({"score_range": None}, FLAGSHIP | {"objective": "2d-dpo + 0.5*sft"}, "a span has score 4"),
        ({"score_range": None}, FLAGSHIP | {"objective": "dpo"}, "a span has score 4"),
        ({}, FLAGSHIP | {"supervision": "segments:normalise=mean"}, "2d-dpo reads scores from 0 to 1"),
        ({}, FLAGSHIP | {"supervision": "segments:weights.ton=1"}, "no span judges 'ton'. Did you mean 'tone'?"),
        ({"chosen_spans": None, "rejected_spans": None}, FLAGSHIP, "segments needs spans, no row has any."),
    ],
    ids=["no segments", "scale", "scale in a sum", "scale of weights", "mean", "aspect", "no spans"],
)
def test_what_segments_need(
    row: dict[str, Any], choices: dict[str, Any], message: str, toy: Toy, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        prepared(toy, data=jsonl(tmp_path / "fine.jsonl", [FINE | row]), **choices)
    assert message in str(caught.value)


def test_the_literal_rule_reads_any_score(toy: Toy, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "fine.jsonl", [FINE | {"score_range": None}])
    (found,) = prepared(toy, data=file, supervision="segments", objective="2d-dpo:rejected=score").train
    assert found.answers[0].score == (4.0, 0.5)


def test_held_out_rows_need_no_spans(toy: Toy, tmp_path: Path) -> None:
    """A model trained on spans can be measured on anything."""
    file = jsonl(tmp_path / "fine.jsonl", [FINE])
    found = prepared(toy, data=file, evaluation={"data": {"test": toy.held_out}}, **FLAGSHIP)
    assert len(found.held_out["test"]) == 16
    assert all(score == 0.5 for e in found.held_out["test"] for answer in e.answers for score in answer.score or ())


def test_rows_passed_over_are_said(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rated = [
        {
            "prompt": "q",
            "response": "a",
            "helpfulness": h,
            "correctness": h,
            "coherence": 4,
            "complexity": 1,
            "verbosity": 1,
        }
        for h in (4, 2)
    ]
    tie = [{**rated[0], "prompt": "p"}, {**rated[0], "prompt": "p", "response": "b"}]
    rated[1]["response"] = "b"
    file = jsonl(tmp_path / "rated.jsonl", [*rated, *tie])
    recipe = recipes.load({"model": toy.model, "data": {"path": file, "format": "helpsteer"}})
    found = prepare(recipe, load_tokenizer(recipe.model), quiet=False)
    assert len(found.train) == 1
    assert "data: rated.jsonl, 1 rows; 2 ties passed over" in capsys.readouterr().err.replace("\n", " ")
    assert found.facts["train"][0]["passed_over"] == {"ties": 2}
