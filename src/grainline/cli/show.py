"""``grainline show``: all there is to know of one method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer


def show(
    room: Annotated[str, typer.Argument(help="The room, or one of it: objectives or objective.")],
    name: Annotated[str, typer.Argument(help="A method, package.module:Class, a .py file, or a preset.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a method: equation, needs, options with their defaults.

    \b
    Examples:
      grainline show objective dpo
      grainline show adapter my_adapter.py
      grainline show preset dora
      grainline show optimizer adamw --json
    """
    from grainline.cli import _print, _rooms

    folder = _rooms.room(room)
    found = _preset(name) if folder == "presets" else _method(folder, name)
    if json:
        _print.as_json(found)
        return
    typer.echo(f"{found['name']}    {found['paper']}".rstrip() + "\n")
    typer.echo(found["doc"] + "\n")
    if folder == "presets":
        typer.echo(f"sets: {', '.join(found['sets'])}")
        return
    typer.echo(f"needs: {', '.join(found['needs']) or 'nothing'}")
    if found["constant"] is not None:
        typer.echo(f"loss at policy = reference, with these defaults: {found['constant']:.6g}")
    for item, why in found["exceptions"].items():
        typer.echo(f"does not promise {item}: {why}")
    if found["fields"]:
        rows = [(key, kind(field), default(field), field["description"]) for key, field in found["fields"].items()]
        _print.table(("option", "type", "default", "meaning"), rows)
    else:
        typer.echo("options: none")


def _method(folder: str, name: str) -> dict[str, Any]:
    import inspect
    import sys

    from grainline import rooms

    cls = rooms.load(folder, name)
    doc = inspect.getdoc(sys.modules[cls.__module__]) or ""
    facts = {"constant": getattr(cls(), "constant", None), "exceptions": getattr(cls(), "exceptions", {})}
    return {"room": folder, **rooms.summary(cls), **facts, "doc": doc, "fields": rooms.fields(cls)}


def _preset(name: str) -> dict[str, Any]:
    from grainline.cli import _rooms

    return {"room": "presets", **_rooms.summary("presets", name), "doc": _rooms.preset(name).about}


def kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words.

    >>> kind({"type": "number", "exclusiveMinimum": 0})
    'number > 0'
    >>> kind({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]})
    'list of text, or null'
    """
    if "anyOf" in schema:
        return ", or ".join(kind(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    name = {"string": "text", "array": "list", "object": "map", "boolean": "true | false"}.get(
        schema.get("type", ""), schema.get("type", "a choice")
    )
    inner = schema.get("items") if schema.get("type") == "array" else schema.get("additionalProperties")
    if "prefixItems" in schema:
        name = "[" + ", ".join(kind(part) for part in schema["prefixItems"]) + "]"
    elif isinstance(inner, Mapping) and inner:
        name += f" of {kind(inner)}"
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {schema[limit]}" for limit, sign in signs.items() if limit in schema]
    return " ".join([name, ", ".join(limits)]).strip()


def default(schema: Mapping[str, Any]) -> str:
    """The default as one would write it; empty where there is none.

    >>> default({"default": None}), default({"default": [0.9, 0.999]}), default({})
    ('null', '[0.9, 0.999]', '')
    """
    from json import dumps

    if "default" not in schema:
        return ""
    value = schema["default"]
    return value if isinstance(value, str) and value else dumps(value, ensure_ascii=False)
