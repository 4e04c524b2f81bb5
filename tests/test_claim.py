"""A folder belongs to one run, and a run goes on with what it began with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy, jsonl, pairs
from grainline import claim
from grainline.errors import RunError, TrainingError, UserError
from grainline.runs import Run, align


def stopped_after(steps: int) -> Any:
    class Stop:
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            control.should_training_stop = state.global_step == steps
            return control

    return Stop()


def start(toy: Toy, out: Path, **more: Any) -> Run:
    data = jsonl(toy.root / f"{out.parent.name}.jsonl", pairs(40, prompts=25, seed=0))
    choices = toy.choices(out, data=data, steps=4, checkpoints={"every": 1}) | more
    return align(**choices, callbacks=[stopped_after(2)])


def test_two_runs_cannot_take_one_folder(tmp_path: Path) -> None:
    claim.take(tmp_path / "run" / "recipe.yaml", "model: m\n")
    with pytest.raises(RunError, match="another run has just begun here"):
        claim.take(tmp_path / "run" / "recipe.yaml", "model: m\n")


def test_a_run_goes_on_with_its_rows(toy: Toy, tmp_path: Path) -> None:
    run = start(toy, tmp_path / "run")
    assert not run.finished
    data = toy.root / f"{tmp_path.name}.jsonl"
    before = data.read_text()
    data.write_text(before + before.splitlines()[0].replace('"tell', '"now tell') + "\n")
    again = toy.choices(tmp_path / "run", data=str(data), steps=4, checkpoints={"every": 1})
    with pytest.raises(RunError, match="training data changed since the run was started"):
        align(**again, resume=True)
    data.write_text(before)
    assert align(**again, resume=True).finished


def test_a_run_goes_on_with_its_model(toy: Toy, tmp_path: Path) -> None:
    run = start(toy, tmp_path / "run")
    file = run.folder / "provenance.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"model": facts["model"] | {"sha256": "0"}}))
    with pytest.raises(RunError, match="the model changed since the run was started"):
        align(**toy.choices(tmp_path / "run", data=str(toy.root / f"{tmp_path.name}.jsonl"), steps=4), resume=True)


@pytest.mark.parametrize(
    ("file", "content"),
    [("provenance.json", "{"), ("provenance.json", '{"model": 3}'), ("provenance.json", "[]"), ("metrics.jsonl", "[]")],
)
def test_a_damaged_run_does_not_go_on(toy: Toy, tmp_path: Path, file: str, content: str) -> None:
    run = start(toy, tmp_path / "run")
    (run.folder / file).write_text(content)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    again = toy.choices(tmp_path / "run", data=str(toy.root / f"{tmp_path.name}.jsonl"), steps=4)
    with pytest.raises(RunError, match=file):
        align(**again, resume=True)
    assert before == {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_a_run_that_never_came_to_its_first_step_goes_on(toy: Toy, tmp_path: Path) -> None:
    run = start(toy, tmp_path / "run")
    for name in ("provenance.json", "metrics.jsonl"):
        (run.folder / name).unlink()
    shutil.rmtree(run.folder / "checkpoints")
    data = str(toy.root / f"{tmp_path.name}.jsonl")
    assert align(**toy.choices(tmp_path / "run", data=data, steps=4), resume=True).finished


def test_what_was_resolved_stays(toy: Toy, tmp_path: Path) -> None:
    run = start(toy, tmp_path / "run", model={"name": toy.model, "dtype": "bfloat16"})
    went_on = align(
        **toy.choices(tmp_path / "run", data=str(toy.root / f"{tmp_path.name}.jsonl"), steps=4), resume=True
    )
    assert went_on.recipe.model.dtype == run.recipe.model.dtype == "bfloat16"


REFUSED_LATE = {
    "a metric that does not exist": ({"evaluation": {"best": "eval_test_rewards/acuracies"}}, "rewards/accuracies"),
    "weights in half precision": ({"adapter": "none", "model": {"dtype": "bfloat16"}}, "would be trained in bfloat16"),
}


@pytest.mark.parametrize("case", REFUSED_LATE)
def test_the_corrected_recipe_may_have_the_folder(case: str, toy: Toy, tmp_path: Path) -> None:
    wrong, said = REFUSED_LATE[case]
    right = toy.choices(tmp_path / "run", evaluation={"data": {"test": toy.held_out}})
    choices = dict(right)
    for key, value in wrong.items():
        old = {"model": {"name": toy.model}}.get(key, right.get(key))
        choices[key] = {**old, **value} if isinstance(value, dict) else value
    with pytest.raises(UserError, match=said):
        align(**choices)
    assert not (tmp_path / "run").exists()
    assert align(**right).finished


def test_a_refused_run_leaves_the_folder_of_another_alone(tmp_path: Path) -> None:
    claim.take(tmp_path / "run" / "recipe.yaml", "model: m\n")
    with pytest.raises(RunError, match="another run has just begun here"), claim.held(tmp_path / "run/recipe.yaml", ""):
        pass
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "model: m\n"


def test_what_is_no_mistake_of_the_users_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError), claim.held(tmp_path / "run" / "recipe.yaml", "model: m\n"):
        raise TrainingError("the disk is full")
    assert (tmp_path / "run" / "recipe.yaml").is_file()


def test_a_run_goes_on_with_the_adapter_it_went_on_from(toy: Toy, tmp_path: Path) -> None:
    align(**toy.choices(tmp_path / "first", steps=1))
    adapter = tmp_path / "first" / "adapter"
    choices = toy.choices(tmp_path / "run", model={"name": toy.model, "adapter": str(adapter)}, steps=3)
    choices |= {"checkpoints": {"every": 1}}
    del choices["adapter"]
    align(**choices, callbacks=[stopped_after(1)])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * 2}))
    (adapter / "probe.json").unlink()  # which would have told it too
    with pytest.raises(RunError, match="the adapter that training goes on from changed since the run was started"):
        align(**choices, resume=True)
