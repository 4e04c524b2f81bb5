"""Drafts: flat places, each with its value and its source."""

from __future__ import annotations

import pytest

from grainline.errors import RecipeError
from grainline.recipe import files
from grainline.recipe.draft import Draft, Whole


def draft() -> Draft:
    return Draft(files._keys, lambda remark: None)


def test_a_file_becomes_places_with_their_source() -> None:
    made = draft()
    made.take_mapping({"model": "m", "objective": "dpo:beta=0.2", "adapter": "0.5*lora", "steps": 3}, "f.yaml")
    assert made.said == {
        ("model", "name"): "m",
        ("objective",): "dpo",
        ("objective", "beta"): 0.2,
        ("adapter",): Whole("0.5*lora"),
        ("steps",): 3,
    }
    assert set(made.where.values()) == {"f.yaml"}


def test_an_override_forgets_what_it_replaces_and_nothing_else() -> None:
    made = draft()
    made.take_mapping({"model": {"name": "m", "dtype": "float32"}, "optimizer": "adamw:lr=1,eps=1", "data": ["a"]}, "f")
    made.take_overrides(["optimizer=adamw", "optimizer.lr=2", "model=n", "data=b"])
    assert made.said == {
        ("model", "name"): "n",
        ("model", "dtype"): "float32",
        ("optimizer",): "adamw",
        ("optimizer", "lr"): 2,
        ("data", "path"): "b",
    }
    assert made.source(("optimizer", "lr")) == "override optimizer.lr=2"
    assert made.source(("model", "dtype")) == "f"
    assert made.source(("data",)) == "override data=b"
    assert made.source(("seed",)) == ""


def test_one_thing_said_twice_in_one_source() -> None:
    with pytest.raises(RecipeError, match=r"f: model\.dtype is stated twice"):
        draft().take_mapping({"model": {"name": "m", "dtype": "float32"}, "torch_dtype": "float32"}, "f")


def test_the_nested_form() -> None:
    made = draft()
    made.take_mapping({"model": "m", "data": {"path": "d"}, "evaluation.data.test": "t", "objective": "dpo"}, "f")
    assert made.nested() == {
        "model": {"name": "m"},
        "data": {"path": "d"},
        "evaluation": {"data": {"test": {"path": "t"}}},
    }
