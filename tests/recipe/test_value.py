"""The recipe as a value: frozen, checked, with methods in its rooms."""

from __future__ import annotations

import dataclasses
from typing import Any

import pydantic
import pytest

from grainline import recipe, rooms
from grainline.recipe import DataChoice, ModelChoice, Recipe, files

LEAST: dict[str, Any] = {"model": ModelChoice(name="m"), "data": (DataChoice(path="d"),)}


def test_rooms_hold_values_of_methods() -> None:
    made = Recipe(**LEAST, objective={"name": "dpo", "beta": 0.2}, adapter=rooms.parse("adapters", "none"))
    assert rooms.text(made.objective) == "dpo:beta=0.2"
    assert rooms.text(made.adapter) == "none"
    assert made.objective == Recipe(**LEAST, objective="dpo:beta=0.2").objective
    assert rooms.text(made.optimizer) == "adamw"
    with pytest.raises(pydantic.ValidationError, match="no method 'dop'"):
        Recipe(**LEAST, objective="dop")


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"epochs": 0}, {"batch_size": 0}, {"data": ()}, {"warmup": -1}, {"seeds": 1}], ids=str
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Recipe(**LEAST | wrong)


def test_steps_of_curation_are_values_in_order() -> None:
    made = Recipe(**LEAST, curate=["segment", {"name": "segment", "shortest": 9}])
    assert [rooms.text(step) for step in made.curate] == ["segment", "segment:shortest=9"]
    assert Recipe(**LEAST, curate="segment").curate == made.curate[:1]
    assert Recipe(**LEAST).curate == ()


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe(**LEAST).seed = 1  # type: ignore[misc]


def test_every_key_says_what_it_is() -> None:
    sections = (ModelChoice, DataChoice, recipe.HeldOutChoice, recipe.EvaluationChoice, recipe.CheckpointChoice)
    for kind in (Recipe, *sections):
        for name, described in rooms.fields(kind).items():
            is_section = kind is Recipe and name in ("model", "evaluation", "checkpoints")  # their classes say it
            assert described["description"] or is_section, f"{kind.__name__}.{name}"


def test_reasons_are_given_for_keys_that_exist() -> None:
    known = files.leaves(recipe.as_dict(Recipe(**LEAST)))
    for key in recipe.MAY_CHANGE:
        assert any(name == key or name.startswith(f"{key}.") for name in known)
