"""A folder belongs to one run, and a run goes on with what it began with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy, jsonl, pairs
from grainline import claim
from grainline.errors import RunError
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
