"""The schema: every key, every method, no dangling reference, and what loads is what it allows."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from grainline import recipe, rooms
from grainline.recipe.preset import ROOMS, presets

SCHEMA = recipe.schema()


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_every_key_is_described() -> None:
    assert set(SCHEMA["properties"]) == {field.name for field in dataclasses.fields(recipe.Recipe)}
    assert all(entry.get("description") for entry in SCHEMA["properties"].values())
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["required"]) == {"model", "data"}
    json.dumps(SCHEMA)


def test_no_reference_leads_nowhere() -> None:
    assert {f"#/$defs/{name}" for name in SCHEMA["$defs"]} >= references(SCHEMA)


@pytest.mark.parametrize(("key", "room"), ROOMS.items())
def test_every_method_is_an_object_with_its_options(key: str, room: str) -> None:
    text, objects = SCHEMA["properties"][key]["anyOf"]
    assert text["type"] == "string"
    found = {entry["title"]: set(entry["properties"]) - {"name"} for entry in objects["oneOf"]}
    methods = {name: set(rooms.fields(rooms.load(room, name))) for name in rooms.names(room)}
    assert found == {**methods, **{name: set() for name, preset in presets().items() if key in preset.choices}}


def test_a_list_of_steps_holds_every_step_of_curation() -> None:
    *_, steps = SCHEMA["properties"]["curate"]["anyOf"]
    assert steps["type"] == "array"
    text, objects = steps["items"]["anyOf"]
    assert text["type"] == "string"
    assert {entry["title"] for entry in objects["oneOf"]} == set(rooms.names("curation"))


@pytest.mark.parametrize(
    ("given", "valid"),
    [
        ({"model": "m", "data": "d"}, True),
        ({"model": {"name": "m"}, "data": ["d", {"path": "e", "weight": 2}]}, True),
        ({"model": "m", "data": {"path": "d"}, "objective": "dpo:beta=0.2"}, True),
        ({"model": "m", "data": "d", "objective": {"name": "dpo", "beta": 0.2}}, True),
        ({"model": "m", "data": "d", "adapter": {"name": "dora", "rank": 8}}, True),
        ({"model": "m", "data": "d", "evaluation": {"data": {"t": "t.jsonl"}, "every": 3}}, True),
        ({"model": "m", "data": "d", "curate": "segment"}, True),
        ({"model": "m", "data": "d", "curate": ["segment:language=de", {"name": "segment", "shortest": 3}]}, True),
        ({"model": "m", "data": "d", "curate": [{"name": "segment", "short": 3}]}, False),
        ({"model": "m", "data": "d", "objective": {"name": "dpo", "bta": 0.2}}, False),
        ({"model": "m", "data": "d", "objective": {"beta": 0.2}}, False),
        ({"model": "m", "data": "d", "stepz": 3}, False),
        ({"model": "m", "data": "d", "batch_size": 0}, False),
        ({"data": "d"}, False),
    ],
)
def test_the_schema_allows_what_loads(given: dict[str, Any], valid: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(given) == valid
    if valid:
        recipe.load(given)
    else:
        with pytest.raises(ValueError, match=r"no key|missing|needs a 'name'|should be|no option"):
            recipe.load(given)


def test_a_dump_is_valid() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    whole = recipe.as_dict(recipe.load({"model": "m", "data": "d", "evaluation": {"data": "t"}}))
    jsonschema.Draft202012Validator(SCHEMA).validate(whole)
