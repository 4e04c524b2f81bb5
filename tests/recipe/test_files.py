"""Recipes: shorthands, overrides, one sentence for each mistake, and the round trip."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest

from grainline import recipe, rooms
from grainline.errors import RecipeError, UserError
from grainline.recipe import DataChoice, EvaluationChoice, HeldOutChoice, ModelChoice, Recipe

LEAST = {"model": "m", "data": "d.jsonl"}


def load(source: Any, *overrides: str) -> Recipe:
    return recipe.load(source, overrides, notice=lambda remark: None)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------ shorthands


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ("d.jsonl", (DataChoice(path="d.jsonl"),)),
        ({"path": "d", "split": "test"}, (DataChoice(path="d", split="test"),)),
        (["a", {"path": "b", "weight": 2}], (DataChoice(path="a"), DataChoice(path="b", weight=2.0))),
        (Path("a/b.jsonl"), (DataChoice(path="a/b.jsonl"),)),
        ([DataChoice(path="a", weight=0.5)], (DataChoice(path="a", weight=0.5),)),
        (DataChoice(path="a"), (DataChoice(path="a"),)),
        ("~/d.jsonl", (DataChoice(path=str(Path.home() / "d.jsonl")),)),
        (["~/d.jsonl"], (DataChoice(path=str(Path.home() / "d.jsonl")),)),
    ],
)
def test_data_may_be_short(given: Any, data: tuple[DataChoice, ...]) -> None:
    assert load({**LEAST, "data": given}).data == data


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ("x/test.jsonl", {"test": "x/test.jsonl"}),
        ("x/test.jsonl.gz", {"test": "x/test.jsonl.gz"}),
        ("org/name", {"name": "org/name"}),
        (["a.jsonl", {"path": "b.jsonl"}], {"a": "a.jsonl", "b": "b.jsonl"}),
        ({"path": "a.jsonl"}, {"a": "a.jsonl"}),
        ({"hard": "a.jsonl", "easy": {"path": "b.jsonl"}}, {"hard": "a.jsonl", "easy": "b.jsonl"}),
        ({"v1.2": "a.jsonl"}, {"v1.2": "a.jsonl"}),
        ({}, {}),
    ],
)
def test_evaluation_data_gets_names(given: Any, data: dict[str, str]) -> None:
    read = load({**LEAST, "evaluation": {"data": given}}).evaluation.data
    assert {name: choice.path for name, choice in read.items()} == data


def test_a_model_may_be_a_name_or_a_choice() -> None:
    assert load(LEAST).model == ModelChoice(name="m")
    assert load({**LEAST, "model": {"name": "m", "dtype": "float32"}}).model.dtype == "float32"
    assert load({**LEAST, "model": ModelChoice(name="m", device="cpu")}).model.device == "cpu"


def test_a_file_reads_as_a_mapping_does(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\ndata: d.jsonl\nreference: off\noptimizer: {name: adamw, lr: 1e-4}\nseed: 010\n")
    read = load(path)
    assert read == load({**LEAST, "reference": "off", "optimizer": "adamw:lr=1e-4", "seed": 10})
    assert load(str(path)) == load(tmp_path) == read, "a run folder stands for its recipe"


# ------------------------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("steps=20", "steps", 20),
        ("steps=null", "steps", None),
        ("model.dtype=bfloat16", "model.dtype", "bfloat16"),
        ("model=other", "model.name", "other"),
        ("evaluation.every=20", "evaluation.every", 20),
        ("evaluation.data=x.jsonl", "evaluation.data", {"x": HeldOutChoice(path="x.jsonl")}),
        ("evaluation.data.dev=x.jsonl", "evaluation.data.dev", HeldOutChoice(path="x.jsonl")),
        ("evaluation={every: 3}", "evaluation", EvaluationChoice(every=3)),
        ("data=[a.jsonl, b.jsonl]", "data", (DataChoice(path="a.jsonl"), DataChoice(path="b.jsonl"))),
        ("data.split=test", "data", (DataChoice(path="d.jsonl", split="test"),)),
        ("data=a=b.jsonl", "data", (DataChoice(path="a=b.jsonl"),)),
        ("data=*.jsonl", "data", (DataChoice(path="*.jsonl"),)),
        ("objective=sft", "objective", "sft"),
        ("objective=dpo:beta=0.2 + 0.5*sft", "objective", "dpo:beta=0.2 + 0.5*sft"),
        ("objective.beta=0.2", "objective", "dpo:beta=0.2,label_smoothing=0.1"),
        ("adapter.targets=[a, b]", "adapter", "lora:targets=[a, b]"),
        ("optimizer.lr_scale.up=16", "optimizer", "adamw:lr_scale={up: 16.0}"),
        ("optimizer.lr.up=2e-3", "optimizer", "adamw:lr_of={up: 0.002}"),
        ("trackers=[wandb]", "trackers", ("wandb",)),
        (" seed = 3 ", "seed", 3),
    ],
)
def test_an_override_replaces_its_key_and_a_dotted_one_its_part(override: str, place: str, value: Any) -> None:
    given = {
        "model": {"name": "m", "device": "cpu"},
        "data": "d.jsonl",
        "objective": "dpo:label_smoothing=0.1",
        "evaluation": {"data": {"test": "t.jsonl"}, "patience": 0},
    }
    found: Any = load(given, override)
    assert found.model.device == "cpu"
    for name in place.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert (rooms.text(found) if place in ("objective", "adapter", "optimizer") else found) == value


def test_the_rate_of_a_role_survives_another_common_rate() -> None:
    given = LEAST | {"optimizer": "adamw:lr=1e-3,lr.up=2e-3"}
    assert rooms.text(load(given, "optimizer.lr=1e-4").optimizer) == "adamw:lr_of={up: 0.002}"
    assert rooms.text(load(given, "optimizer.lr.up=0.5").optimizer) == "adamw:lr=0.001,lr_of={up: 0.5}"
    assert load(given) == load(LEAST, "optimizer=adamw", "optimizer.lr.up=2e-3", "optimizer.lr=1e-3")


def test_overrides_are_independent_of_their_order() -> None:
    assert load(LEAST, "objective.beta=0.3", "objective=dpo") == load(LEAST, "objective=dpo:beta=0.3")


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "{file}: the recipe is empty. Write at least model and data."),
        ("- a\n- b", "{file}: a recipe is a mapping of keys, not a list."),
        ("just text", "{file}: a recipe is a mapping of keys, not text ('just text')."),
        ("data: d", "{file}: model is missing. Write model: HUB_ID_OR_FOLDER."),
        ("model: m", "{file}: data is missing. Write data: FILE_FOLDER_OR_HUB_ID."),
        ("model: m\ndata: d\nobjectiv: dpo", "{file}: no key 'objectiv'. Did you mean 'objective'?"),
        ("model: m\ndata: d\nlearning_rat: 1", "{file}: no key 'learning_rat'. Did you mean 'learning_rate'?"),
        ("model: {nam: m}\ndata: d", "{file}: no key 'model.nam'. Did you mean 'name'?"),
        ("model: m\ndata: {path: d, spilt: x}", "{file}: no key 'data.spilt'. Did you mean 'split'?"),
        ("model: m\ndata: [{path: d, spilt: x}]", "{file}: no key 'data.spilt'. Did you mean 'split'?"),
        ("model: m\ndata: d\nevaluation: {data: {t: {pth: x}}}", "{file}: no key 'evaluation.data.t.pth'. Did you"),
        ("model: m\ndata: d\nmodel: n", "{file}, line 3: key 'model' stands twice, first in line 1."),
        ("model: m\n\tdata: d", "{file}, line 2: found character"),
        (
            "model: m\ndata: d\nbatch_size: 0",
            "{file}: batch_size should be a whole number of at least 1, or auto, got 0.",
        ),
        ("model: m\ndata: d\nbatch_size: many", "{file}: batch_size should be a whole number of at least 1, or auto"),
        ("model: m\ndata: d\nbatch_size: 2.0", "{file}: batch_size should be a whole number of at least 1, or auto"),
        (
            "model: m\ndata: d\nmax_tokens: 1",
            "{file}: max_tokens should be a whole number of at least 2, or auto, got 1.",
        ),
        ("model: m\ndata: d\nmemory: 8", "{file}: memory should be a valid string, got 8."),
        ("model: m\ndata: d\nmemory: 8G", "{file}: memory should be a size such as 8GB or 500MB, or auto, got '8G'."),
        ("model: m\ndata: d\nsampler: random", "{file}: sampler should be 'shuffle', 'sequential' or 'by_prompt', got"),
        ("model: m\ndata: []", "{file}: data: Tuple should have at least 1 item"),
        ("model: m\ndata: [{path: d, weight: 0}]", "{file}: data.0.weight should be greater than 0, got 0."),
        ("model: m\ndata: [[d]]", "{file}: a list of data holds files or mappings, not lists."),
        ("model: m\ndata: 3", "{file}: data cannot be 3. Write a path, or a mapping with a path."),
        ("model: null\ndata: d", "{file}: model cannot be null. Write a mapping."),
        ("model: {dtype: float32}\ndata: d", "{file}: model.name is missing."),
        ("model: m\ndata: d\nevaluation: t.jsonl", "{file}: evaluation cannot be text ('t.jsonl'). Write evaluation"),
        ("model: m\ndata: d\nevaluation: {data: [a/x.jsonl, b/x.json]}", "two evaluation sets would be called 'x'"),
        ("model: m\ndata: d\nevaluation: {patience: 2}", "{file}: evaluation.patience waits for a new best"),
        ("model: m\ndata: d\nevaluation: {best: eval_t_loss}", "is no metric of the evaluation data. Write eval"),
        (
            "model: m\ndata: d\nevaluation: {best: eval_loss, data: t.jsonl}",
            "is no metric of the evaluation data. It begins with eval_t_.",
        ),
        ("model: m\ndata: d\nobjective: dop", "{file}: objective: no method 'dop' in objectives/. Did you mean 'dpo'?"),
        ("model: m\ndata: d\nobjective: cdop", "Did you mean 'cdpo'?"),
        ("model: m\ndata: d\nobjective: dpo:beta=-1", "{file}: objective: dpo:beta: Input should be greater than 0"),
        ("model: m\ndata: d\nobjective: [dpo]", "{file}: objective: objectives cannot be ['dpo']."),
        (
            "model: m\ndata: d\nobjective: {beta: 1}",
            "{file}: objective: a choice for objectives written as a map needs",
        ),
        ("model: m\ndata: d\nadapter: {name: lora, rnk: 8}", "{file}: adapter: lora has no option 'rnk'. Did you mean"),
        ("model: m\ndata: d\noptimizer: 'adamw:lr=[1'", "{file}: optimizer: ']' is missing in"),
        (
            "model: m\ndata: d\ncurate: [segmnt]",
            "{file}: curate: no method 'segmnt' in curation/. Did you mean 'segment'?",
        ),
        ("model: m\ndata: d\ncurate: {name: segment, by: 3}", "{file}: curate: segment has no option 'by'."),
        ("model: m\ndata: d\nobjective: null", "{file}: objective: objectives cannot be None."),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load(path)
    assert said.format(file=path) in str(caught.value).replace("{{", "{")
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["steps"], "'steps' is not an override. Write key=value."),
        (["=3"], "'=3' is not an override."),
        (["stepz=3"], "override stepz=3: no key 'stepz'. Did you mean 'steps'?"),
        (["steps.x=3"], "steps has no parts, so 'steps.x' cannot be set."),
        (["steps=3", "steps=4"], "steps stands twice among the overrides."),
        (["batch_size=0"], "override batch_size=0: batch_size should be a whole number of at least 1, or auto, got 0."),
        (["objective=dpo:bta=1"], "override objective=dpo:bta=1: objective: dpo has no option 'bta'."),
        (["objective.bta=1"], "override objective.bta=1: objective: dpo has no option 'bta'."),
        (["objective=dpo + sft", "objective.beta=1"], "objective.beta cannot be set, objective is not one named"),
        (["data=[a, b]", "data.split=x"], "override data.split=x: data.split cannot be set: data is a list."),
        (
            ["curate=segment:shortest=0"],
            "override curate=segment:shortest=0: curate: segment:shortest: Input should be",
        ),
        (["curate.x=3"], "curate has no parts, so 'curate.x' cannot be set."),
        (["model.dtype=float8"], "override model.dtype=float8: model.dtype should be 'auto', 'float32'"),
    ],
)
def test_a_mistake_in_an_override_is_one_sentence(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(LEAST, *overrides)
    assert said in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(RecipeError, match=r"recip\.yaml: no such file\. Did you mean 'recipe\.yaml'\?"):
        load(tmp_path / "recip.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"empty: is a folder without a recipe\.yaml\."):
        load(tmp_path / "empty")
    (tmp_path / "bytes.yaml").write_bytes(b"model: \xff")
    with pytest.raises(RecipeError, match="not UTF-8 text"):
        load(tmp_path / "bytes.yaml")


# --------------------------------------------------------------------------------------------------------- remarks


def test_what_should_not_pass_in_silence_is_remarked_on() -> None:
    given = {**LEAST, "evaluation": {"data": {"again": "d.jsonl"}}, "steps": 3, "epochs": 2}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = recipe.load(given)
        recipe.load({**LEAST, "evaluation": {"every": 3}})
        recipe.load({**LEAST, "evaluation": {"every": 3, "geometry": True}})
        recipe.load({**LEAST, "memory": "8GB", "batch_size": "auto"})
        recipe.load({**LEAST, "memory": "8GB", "max_tokens": "auto"})
        recipe.load(recipe.as_dict(read))  # written out in full: remarked on when it was made
    said = [str(warning.message) for warning in caught]
    assert said == [
        "evaluation set 'again' is also trained on: it says nothing of new data.",
        "epochs=2 is not used, because steps=3 is set.",
        "evaluation.every is set, but evaluation.data names nothing to look at.",
        "memory=8GB is not used, because max_tokens=1024 is a number.",
    ]


# ------------------------------------------------------------------------------------------------------ round trip

RICH = {
    "model": {"name": "m", "revision": "123e4", "dtype": "float16"},
    "data": ["a.jsonl", {"path": "b", "split": "train[:10%]", "weight": 0.5}],
    "evaluation": {"data": {"test": "t.jsonl"}, "every": 10, "best": "-eval_test_loss", "patience": 2},
    "objective": "dpo:beta=0.2,divergence=js + 0.5*sft",
    "adapter": {"name": "lora", "targets": ["q_proj"], "rank_pattern": {"a.b:c, d": 3}},
    "optimizer": "adamw:lr=1e-5,lr.down=2e-5,lr_scale.up=16",
    "reference": "off",
    "steps": 7,
    "trackers": ["wandb"],
    "curate": ["segment", {"name": "segment", "shortest": 9}],
}


@pytest.mark.parametrize("given", [LEAST, RICH])
def test_what_is_dumped_loads_as_the_same(tmp_path: Path, given: dict[str, Any]) -> None:
    read = load(given)
    text = recipe.dump(read)
    assert load(write(tmp_path, text)) == read == load(recipe.as_dict(read))
    assert recipe.dump(load(tmp_path)) == text
    assert recipe.fingerprint(load(tmp_path)) == recipe.fingerprint(read)
    assert list(recipe.as_dict(read)) == [field.name for field in dataclasses.fields(Recipe)]


@pytest.mark.parametrize(
    ("override", "differ"),
    [
        ("seed=1", ["seed"]),
        ("objective=dpo:beta=0.3", ["objective"]),
        ("model.revision=x", ["model.revision"]),
        ("data.weight=2", ["data.0.weight"]),
        ("data=[d.jsonl, e.jsonl]", ["data.1.path", "data.1.split", "data.1.format", "data.1.weight"]),
        ("curate=[segment]", ["curate", "curate.0"]),
        ("epochs=2", ["epochs"]),
        ("out=elsewhere", []),
        ("trackers=[wandb]", []),
        ("checkpoints.every=1", []),
        ("evaluation.data=t.jsonl", []),
        ("max_tokens=100", []),
        ("max_tokens=auto", []),
        ("memory=8GB", []),
        ("model.device=cpu", []),
        ("model.gradient_checkpointing=true", []),
    ],
)
def test_a_run_goes_on_with_a_recipe_that_learns_the_same(override: str, differ: list[str]) -> None:
    one, other = load(LEAST), load(LEAST, override)
    assert recipe.differences(one, other) == differ
    assert (recipe.fingerprint(one) == recipe.fingerprint(other)) == (not differ)


def test_a_budget_that_was_settled_stays_unless_another_is_stated() -> None:
    settled = load(LEAST, "max_tokens=auto"), load(LEAST, "max_tokens=640")
    for started, wanted, goes_on in [(640, "auto", 640), (640, "100", 100), ("auto", "auto", "auto")]:
        recipes = load(LEAST, f"max_tokens={started}"), load(LEAST, f"max_tokens={wanted}")
        assert recipe.resumed(*recipes).max_tokens == goes_on
    assert [one.tokens_at_once for one in settled] == [load(LEAST).max_tokens, 640]
    sizes = {"auto": None, "8GB": 8 * 10**9, "1.5 GiB": 3 * 2**29, "500MB": 5 * 10**8}
    assert {size: load(LEAST, f"memory={size}").memory_bytes for size in sizes} == sizes


def test_what_a_run_resolved_is_no_difference() -> None:
    open_ = load(LEAST)
    resolved = load(LEAST, "steps=20", "layout=tree", "reference=cache", "model.dtype=float32")
    assert recipe.differences(resolved, open_) == []
    assert recipe.differences(resolved, load(LEAST, "steps=30")) == ["steps"]
    assert recipe.differences(load(LEAST, "batch_size=5"), load(LEAST, "batch_size=auto")) == []
    assert recipe.differences(load(LEAST, "batch_size=5"), load(LEAST, "batch_size=6")) == ["batch_size"]


def test_rows_and_steps_that_were_settled_stay() -> None:
    """They decide what is learnt; a run that did not come to settling them has learnt nothing."""
    known, open_ = ["batch_size=5", "steps=8"], ["batch_size=auto"]
    for started, wanted, goes_on in [(known, open_, (5, 8)), (open_, known, (5, 8)), (open_, open_, ("auto", None))]:
        found = recipe.resumed(load(LEAST, *started), load(LEAST, *wanted))
        assert (found.batch_size, found.steps) == goes_on
