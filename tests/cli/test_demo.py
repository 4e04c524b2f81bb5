"""``grainline demo``: its recipe is sound, and what it tells is what the run's folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy
from grainline import cli, rooms
from grainline import recipe as recipes
from grainline.data import files
from grainline.errors import RecipeError


@pytest.fixture
def small(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's own recipe on the toy's model, for three steps."""
    recipe = recipes.load(
        files.packaged("house") / "recipe.yaml", [f"model={toy.model}", "steps=3", "adapter=lora:rank=4"]
    )
    real = recipes.load
    monkeypatch.setattr(
        recipes, "load", lambda path, *a, **k: recipe if "packaged" in str(path) else real(path, *a, **k)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", *arguments])
    assert not caught.value.code
    return capsys.readouterr().out


def test_the_recipe_is_the_flagship() -> None:
    recipe = recipes.load(files.packaged("house") / "recipe.yaml")
    assert [rooms.name_of(type(x)) for x in (recipe.supervision, recipe.objective)] == ["segments", "2d-dpo"]
    assert recipe.data[0].path == recipe.evaluation.data["house"].path == "house"


def test_before_and_after_as_the_folder_holds_them(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(said(capsys, "--json"))
    assert told["folder"] == "runs/demo-1"
    assert Path(told["adapter"], "adapter_model.safetensors").is_file()
    assert told["before"]["eval_house_rewards/accuracies"] == 0.5  # every margin is 0: all ties
    assert told["before"]["eval_house_likelihood/accuracies"] != 0.5
    lines = [json.loads(line) for line in Path(told["folder"], "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == told["before"]
    assert told["after"]["eval_house_rewards/safety/margins"] != 0
    assert told["sample"]["policy"] != ""


def test_a_page(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "--out", "runs/mine", "--seed", "3")
    for words in (
        "109 held-out pairs",
        "likelihood accuracy",
        "safety",
        "asked",
        "after",
        "runs/mine/adapter",
        "seed=3",
    ):
        assert words in out
    assert "0.5 [0.5, 0.5]" in out
    assert recipes.load(small / "runs/mine/recipe.yaml").seed == 3


def test_the_next_free_folder(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/demo-1").mkdir(parents=True)
    assert json.loads(said(capsys, "--json"))["folder"] == "runs/demo-2"


def test_data_of_its_own_needs_a_row_of_spans(toy: Toy, small: Path) -> None:
    """What the demo proposes last works on data with spans only, and says so otherwise."""
    from grainline.runs import run

    recipe: Any = recipes.load(files.packaged("house") / "recipe.yaml")
    import dataclasses

    plain = dataclasses.replace(recipe, data=recipes.load({"model": "m", "data": toy.pairs}).data)
    with pytest.raises(RecipeError, match="needs spans"):
        run(plain, progress=False)
