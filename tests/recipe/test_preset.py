"""Presets: every file is read, and its choices make methods."""

from __future__ import annotations

from pathlib import Path

import pytest

import grainline.presets
from grainline import recipe, rooms
from grainline.errors import RecipeError, SpecError
from grainline.recipe import preset
from grainline.recipe.preset import ROOMS, presets

LEAST = {"model": "m", "data": "d.jsonl"}


def test_every_file_is_a_preset() -> None:
    files = Path(grainline.presets.__file__).parent.glob("*.yaml")
    assert list(presets()) == sorted(file.stem for file in files) == sorted(presets())
    assert {"cdpo", "dora", "olora", "pissa", "rslora"} <= set(presets())


@pytest.mark.parametrize("name", presets())
def test_a_preset_says_what_it_is_and_sets_something(name: str) -> None:
    preset = presets()[name]
    assert preset.paper
    assert preset.about.endswith(".")
    for key, choice in preset.choices.items():
        assert name not in rooms.names(ROOMS[key]), "a preset and a method of one name"
        assert rooms.text(rooms.parse(ROOMS[key], choice)) == choice


@pytest.mark.parametrize("name", presets())
def test_a_preset_stands_where_a_method_stands(name: str) -> None:
    preset = presets()[name]
    for key in preset.choices:
        read = recipe.load(LEAST, [f"{key}={name}"])
        assert {other: rooms.text(getattr(read, other)) for other in preset.choices} == dict(preset.choices)


@pytest.mark.parametrize(
    ("overrides", "key", "text"),
    [
        (["objective=cdpo"], "objective", "dpo:label_smoothing=0.1"),
        (["objective=cdpo:label_smoothing=0.2"], "objective", "dpo:label_smoothing=0.2"),
        (["objective=cdpo:beta=0.3"], "objective", "dpo:beta=0.3,label_smoothing=0.1"),
        (["objective=cdpo", "objective.beta=0.3"], "objective", "dpo:beta=0.3,label_smoothing=0.1"),
        (["adapter=dora:rank=4"], "adapter", "lora:rank=4,dora=true"),
    ],
)
def test_options_beside_a_preset_override_its_own(overrides: list[str], key: str, text: str) -> None:
    assert rooms.text(getattr(recipe.load(LEAST, overrides), key)) == text


def test_a_preset_of_another_room_and_a_room_set_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"preset 'dora' does not set objective\. Write adapter=dora\."):
        recipe.load(LEAST, ["objective=dora"])
    both = preset.Preset("both", "p", "a.", {"objective": "sft", "adapter": "none"})
    monkeypatch.setattr("grainline.recipe.draft.presets", lambda: {"both": both})
    read = recipe.load(LEAST, ["objective=both"])
    assert (rooms.text(read.objective), rooms.text(read.adapter)) == ("sft", "none")
    for override in ("adapter=lora", "adapter.rank=3", "lora_r=3"):
        with pytest.raises(RecipeError, match="adapter is set by preset 'both' too"):
            recipe.load(LEAST, ["objective=both", override], notice=lambda remark: None)
    with pytest.raises(SpecError, match="Did you mean 'both'"):
        recipe.load(LEAST, ["objective=bothh"])


def test_a_preset_that_chooses_from_no_room(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    for text in ("paper: x", "paper: x\nsteps: 3"):
        file.write_text(text)
        with pytest.raises(RecipeError, match="a preset chooses from supervision, objective, adapter, optimizer"):
            preset._load(file)
