"""The pages that nobody writes: tables of methods, options and recipe keys, every verb's help, the metrics.

Plain functions from what the package says of itself to Markdown. ``hooks.py`` puts them into the site while it is
built, so nothing of this is kept in a file and nothing can go stale. No function imports torch.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

from grainline import cli, recipe, rooms
from grainline.cli import _rooms
from grainline.cli.show import default, kind
from grainline.recipe import aliases, json_schema, preset
from grainline.recipe.value import MAY_CHANGE

DOCS = Path(__file__).parent
SOURCE = Path(rooms.__file__).parent
METRICS = ("evaluation/preferences.py", "evaluation/rewards.py", "reduction.py")
"""Modules whose docstring holds a table of metrics."""
TABLE = re.compile(r"^(=+ +=+)\n(?P<head>.+)\n\1\n(?P<body>.*?)\n\1\n?", re.MULTILINE | re.DOTALL)


def generated() -> dict[str, Callable[[], str]]:
    """Every page that is made while the site is built: its place in the site -> what writes it."""
    return {f"{room}/index.md": partial(methods, room) for room in rooms.FOLDERS} | {
        "presets.md": presets,
        "reference/cli.md": verbs,
        "reference/recipe.md": keys,
        "reference/metrics.md": metrics,
    }


# ------------------------------------------------------------------------------------------------------- markdown


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    >>> print(table(("a", "b"), [("1", "2 | 3")]), end="")
    | a | b |
    | --- | --- |
    | 1 | 2 \\| 3 |
    """
    cells = [columns, ["---"] * len(columns), *([" ".join(cell.split()) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(_plain(cell) for cell in row)} |\n" for row in cells)


def _plain(cell: str) -> str:
    """Outside code a bar would end the cell, and <word> would be a tag; inside code Markdown leaves them alone."""
    return re.sub(r"(`[^`]*`)|[|<]", lambda found: found[1] or {"|": r"\|", "<": "&lt;"}[found[0]], cell)


def code(text: str) -> str:
    """Code, or nothing."""
    return f"`{text}`" if text else ""


def plain(text: str) -> str:
    """A sentence as it is: a product's star emphasises nothing."""
    return text.replace("*", r"\*")


def links(text: str) -> str:
    """Papers by their number become links."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


# -------------------------------------------------------------------------------------------------------- methods


STAGES = {
    "rewards": "Who scores an answer, piece by piece, and how sure it is. Written as `--reward NAME:option=value`.",
    "curation": "Steps from rows to better rows. Written as `grainline curate NAME` or chained in a recipe's `curate`.",
}
"""What stands on the index page of a stage."""


def methods(room: str) -> str:
    """The index of a room or stage: what it asks, its methods, the presets that choose in it."""
    rows = []
    for name in rooms.names(room):
        found = rooms.summary(rooms.load(room, name))
        there = (DOCS / room / f"{name}.md").is_file()
        shown = f"[{code(name)}]({name}.md)" if there else code(name)
        rows.append((shown, found["title"], links(found["paper"]), ", ".join(found["needs"]) or "nothing"))
    listed = table(("name", "what it is", "paper", "needs"), rows)
    if room in STAGES:
        return "\n\n".join([f"# {room.capitalize()}", STAGES[room], listed])
    key = next(key for key, folder in preset.ROOMS.items() if folder == room)
    page = [
        f"# {room.capitalize()}",
        rooms.fields(recipe.Recipe)[key]["description"],
        f"Written as `{key}=NAME` or `{key}=NAME:option=value`; `grainline show {key} NAME` prints what stands here.",
        listed,
    ]
    fitting = [name for name, one in preset.presets().items() if key in one.choices]
    if fitting:
        page += ["## Presets", f"Named choices, written in the same place: `{key}=NAME`.", _presets(fitting)]
    return "\n\n".join(page)


def presets() -> str:
    """All presets."""
    about = "Papers that are combinations of what is there. The name stands where a method's would."
    return "\n\n".join(["# Presets", about, _presets(list(preset.presets()))])


def _presets(names: list[str]) -> str:
    rows = []
    for name in names:
        found = _rooms.summary("presets", name)
        sets = ", ".join(code(choice) for choice in found["sets"])
        rows.append((code(name), f"{plain(preset.presets()[name].about)} {links(found['paper'])}.", sets))
    return table(("name", "what it is, and whose", "what it sets"), rows)


def options(room: str, name: str) -> str:
    """The options of one method; empty where it has none."""
    if name not in rooms.names(room) or not (fields := rooms.fields(rooms.load(room, name))):
        return ""
    rows = [(code(key), kind(field), code(default(field)), field["description"]) for key, field in fields.items()]
    return "## All options\n\n" + table(("option", "type", "default", "meaning"), rows)


# ------------------------------------------------------------------------------------------------------ reference


@cache
def command_line() -> Any:
    """The command line as typer reads it, 100 columns wide."""
    import typer

    root = typer.main.get_command(cli.app())
    return root.make_context("grainline", [], resilient_parsing=True, terminal_width=100)


def help_of(words: str) -> str:
    """What ``grainline VERB --help`` prints; a verb may be two words."""
    context = command_line()
    for word in words.split():
        command = context.command.commands[word]
        context = command.make_context(word, [], parent=context, resilient_parsing=True)
    return command.get_help(context)


def parts_of(verb: str) -> list[str]:
    """The commands of a verb that has several: ``reward train`` and so on."""
    command = command_line().command.commands[verb]
    return [f"{verb} {part}" for part in getattr(command, "commands", ())]


def verbs() -> str:
    """``--help`` of every verb."""
    page = [
        "# Command line",
        "What `grainline VERB --help` prints. Results go to standard output, progress and remarks to standard error. "
        "Exit status: 0 done, 1 the run failed, 2 the input is at fault, 130 interrupted.",
    ]
    for verb in cli.verbs():
        page.append(f"## grainline {verb}")
        if (DOCS / f"{verb}.md").is_file():
            page.append(f"[More about it](../{verb}.md)")
        page += [f"```text\n{help_of(words)}\n```" for words in (verb, *parts_of(verb))]
    return "\n\n".join(page)


def keys() -> str:
    """Every key of a recipe, and the names of other tools."""
    page = [
        "# Recipe",
        "A recipe is one YAML file. Each key can be set on the command line: `grainline align recipe.yaml "
        "model.dtype=bfloat16`, and is an argument of `grainline.align`. Only `model` and `data` must be said.",
        *_keys(recipe.Recipe, ""),
        "## On going on",
        "A run that goes on (`--resume`) may be told these anew; all else must be what it was.",
        table(("key", "why"), [(code(key), why + ".") for key, why in MAY_CHANGE.items()]),
        "## Names of TRL and transformers",
        "These are read, and each is said once with what it was read as:",
        table(("theirs", "ours"), [(code(theirs), code(ours)) for theirs, ours in aliases.RENAMED.items()]),
        "These too, where their value can be rewritten exactly: "
        + ", ".join(code(name) for name in aliases.names() if name not in _PLAIN)
        + ".",
        "These decide nothing here:",
        table(("theirs", "why"), [(code(theirs), why) for theirs, why in aliases.INERT.items()]),
        "These are refused, because they mean something else or nothing here:",
        table(("theirs", "what to write instead"), [(code(theirs), do) for theirs, do in aliases.REFUSED.items()]),
    ]
    return "\n\n".join(page)


_PLAIN = {*aliases.RENAMED, *aliases.INERT, *aliases.REFUSED}


def _keys(cls: type, prefix: str) -> Iterator[str]:
    """The table of ``cls``, then those of the specs inside it."""
    schema = json_schema.recipe_schema(recipe.Recipe)
    stated = schema["properties"] if cls is recipe.Recipe else schema["$defs"][cls.__name__]["properties"]
    places = {hint.__name__: f"{prefix}{name}" for name, hint in _inside(cls)}
    rows = []
    for name, field in rooms.fields(cls).items():
        described = field["description"] or stated[name].get("description", "")
        room = preset.ROOMS.get(name) if cls is recipe.Recipe else None
        typed = f"[a method](../{room}/index.md)" if room else _kind(stated[name], places)
        rows.append((code(f"{prefix}{name}"), typed, code(default(_own(field))), described))
    yield table(("key", "type", "default", "meaning"), rows)
    for name, hint in _inside(cls):
        yield f"## {prefix}{name} {{ #{_anchor(prefix + name)} }}"
        yield " ".join((hint.__doc__ or "").split())
        yield from _keys(hint, f"{prefix}{name}.")


def _inside(cls: type) -> list[tuple[str, type]]:
    """The fields of ``cls`` that hold specs, with the spec."""
    found = []
    for field in dataclasses.fields(cls):
        hint = cls.__pydantic_fields__[field.name].annotation  # type: ignore[attr-defined]
        found += [(field.name, h) for h in (hint, *get_args(hint)) if dataclasses.is_dataclass(h)]
    return found  # type: ignore[return-value]


def _own(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without a default that is a spec: its own table says it."""
    value = field.get("default")
    nested = dataclasses.is_dataclass(value) or (isinstance(value, dict) and "$ref" in field)
    return {key: part for key, part in field.items() if not (nested and key == "default")}


def _kind(schema: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """A type in a few words, with links to the tables of the specs inside it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[map](#{_anchor(places[name])})" if name in places else "map"
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(_kind(part, places) for part in schema["anyOf"]))
    if schema.get("type") == "array" and "items" in schema:
        return f"list of {_kind(schema['items'], places)}"
    if isinstance(inner := schema.get("additionalProperties"), Mapping):
        return f"map from a name to {_kind(inner, places)}"
    return kind(schema)


def _anchor(place: str) -> str:
    return place.replace(".", "-")


def metrics() -> str:
    """What the modules that measure say of their metrics."""
    page = ["# Metrics"]
    for module in METRICS:
        text = ast.get_docstring(ast.parse((SOURCE / module).read_text(encoding="utf-8"))) or ""
        if TABLE.search(text):
            page.append(markdown(text))
    page.append("A held-out set named x is logged as `eval_x_*`. What to make of them: [warnings](../warnings.md).")
    return "\n\n".join(page)


def markdown(docstring: str) -> str:
    """The little reStructuredText that our docstrings hold, as Markdown."""
    found = TABLE.sub(_as_table, docstring)
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", found).replace("``", "`")


def _as_table(found: re.Match[str]) -> str:
    second = found[1].rindex(" ") + 1  # where the second column begins
    rows: list[list[str]] = []
    for line in found["body"].splitlines():
        first, rest = line[:second].strip(), line[second:]
        if first:
            rows.append([", ".join(code(name) for name in first.split(", ")), rest])
        else:
            rows[-1][1] += f" {rest}"
    return table([found["head"][:second].strip(), found["head"][second:].strip()], rows)
