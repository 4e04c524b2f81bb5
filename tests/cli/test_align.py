"""``grainline align``: what it passes on, and what it prints where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grainline import cli, recipe


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["align", *arguments])
    assert not caught.value.code


def test_a_recipe_with_overrides(align: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: m\ndata: d.jsonl\nout: runs/x\nlearning_rate: 1e-3\n")
    call(str(file), "objective=dpo:beta=0.2", "seed=1")
    (chosen, resume), *rest = align.asked
    assert not rest
    assert not resume
    assert (chosen.objective.beta, chosen.seed, chosen.optimizer.lr) == (0.2, 1, 1e-3)
    out, err = capsys.readouterr()
    assert "eval_test_rewards/accuracies" in out
    assert out.rstrip().endswith("adapter: runs/x/adapter")
    assert err == f"note: {file}: learning_rate is read as optimizer.lr=0.001.\n"


def test_words_instead_of_a_recipe(align: Any) -> None:
    call("model=m", "data=d.jsonl", "steps=3")
    assert align.asked[0][0] == recipe.load({"model": "m", "data": "d.jsonl", "steps": 3})


def test_the_folder_of_a_run_resumes_it(align: Any, tmp_path: Path) -> None:
    written = {"model": "m", "data": "d", "out": "where/it/was"}  # and since then the folder was moved
    (tmp_path / "recipe.yaml").write_text(recipe.dump(recipe.load(written)))
    call(str(tmp_path), "--resume")
    chosen, resume = align.asked[0]
    assert resume
    assert chosen.out == str(tmp_path)


def test_json(align: Any, capsys: pytest.CaptureFixture[str]) -> None:
    call("model=m", "data=d", "out=runs/x", "--json")
    assert json.loads(capsys.readouterr().out) == {
        "folder": "runs/x",
        "adapter": "runs/x/adapter",
        "metrics": {"eval_test_rewards/accuracies": 0.75, "step": 20},
    }


def test_a_stopped_run_says_how_to_go_on(align: Any, capsys: pytest.CaptureFixture[str]) -> None:
    align.Run.finished = False
    with pytest.raises(SystemExit) as caught:
        cli.main(["align", "model=m", "data=d", "out=runs/x"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "note: stopped and saved; go on with: grainline align runs/x --resume\n"
