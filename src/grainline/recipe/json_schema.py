"""The JSON schema of a recipe file: the fields as pydantic knows them, the shorthands, every method of every room."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from grainline import rooms
from grainline.recipe.preset import ROOMS, presets


def recipe_schema(recipe: type) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a YAML file that holds a ``recipe``."""
    schema = TypeAdapter(recipe).json_schema()
    definitions, properties = schema["$defs"], schema["properties"]
    for part in properties.values():
        if "$ref" in part:
            part["description"] = definitions[part["$ref"].rpartition("/")[2]]["description"]
    source = {"anyOf": [_text("File, folder or hub id."), {"$ref": "#/$defs/DataChoice"}]}
    _allow(properties["model"], _text("Hub id, folder or alias."))
    properties["data"]["items"] = source
    _allow(properties["data"], *source["anyOf"])
    named = definitions["EvaluationChoice"]["properties"]["data"]
    named["additionalProperties"] = source
    _allow(named, _text("File, folder or hub id."), {"type": "array", "items": source})
    step = {"anyOf": [_text("NAME or NAME:key=value, see grainline ls curation.")]}
    step["anyOf"].append({"oneOf": _methods("curation", definitions)})
    properties["curate"]["items"] = step
    _allow(properties["curate"], *step["anyOf"])
    for key, room in ROOMS.items():
        described = {name: properties[key][name] for name in ("default", "description", "title")}
        properties[key] = {**described, "anyOf": [_text(f"NAME or NAME:key=value, see grainline ls {room}.")]}
        properties[key]["anyOf"].append({"oneOf": [*_methods(room, definitions), *_presets(key)]})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _allow(schema: dict[str, Any], *others: dict[str, Any]) -> None:
    """Let ``schema`` be one of ``others`` as well; its description, title and default stay where they are."""
    own = {key: schema.pop(key) for key in list(schema) if key not in ("description", "title", "default")}
    schema["anyOf"] = [*others, own]


def _methods(room: str, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """Each method of ``room`` as a mapping with its name and its options."""
    found = []
    for name in rooms.names(room):
        method = TypeAdapter(rooms.load(room, name)).json_schema()
        definitions |= method.pop("$defs", {})
        properties = {"name": {"const": name}, **method.get("properties", {})}
        title = rooms.summary(rooms.load(room, name))["title"]
        found.append(_object(name, title, properties))
    return found


def _presets(key: str) -> list[dict[str, Any]]:
    fitting = [preset for preset in presets().values() if key in preset.choices]
    return [
        _object(preset.name, preset.about, {"name": {"const": preset.name}}) | {"additionalProperties": True}
        for preset in fitting
    ]


def _object(title: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "title": title,
        "description": description,
        "properties": properties,
        "required": ["name"],
        "additionalProperties": False,
    }
