"""``grainline show``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grainline import cli, rooms
from grainline.cli.show import default, kind


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["show", *arguments])
    assert not caught.value.code
    return capsys.readouterr().out


def test_a_method_with_its_equation_needs_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(capsys, "objective", "dpo")
    assert "\\log\\sigma" in shown
    assert "needs: pairs, reference" in shown
    row = next(line for line in shown.splitlines() if line.split()[:1] == ["label_smoothing"])
    assert "number >= 0, < 0.5" in row
    assert "0.0" in row
    assert show(capsys, "objectives", "dpo") == shown


def test_a_method_without_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(capsys, "objective", "sft").endswith("needs: nothing\noptions: none\n")


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in rooms.FOLDERS for name in rooms.names(room)])
def test_every_method_as_json(room: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(show(capsys, room, name, "--json"))
    assert (found["room"], found["name"]) == (room, name)
    assert set(found) == {"room", "name", "title", "paper", "needs", "constant", "exceptions", "doc", "fields"}


def test_what_a_loss_is_at_the_reference_and_what_it_does_not_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert "loss at policy = reference, with these defaults: 0.693147\n" in show(capsys, "objective", "dpo")
    shown = show(capsys, "objective", "apo-down")
    assert "does not promise monotony: it lowers the chosen answer too, that is its purpose\n" in shown
    assert "loss at policy" not in show(capsys, "objective", "simpo")


@pytest.mark.parametrize("name", rooms.names("objectives"))
def test_every_objective_says_its_equation_and_its_traps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(capsys, "objective", name)
    assert ".. math::" in shown
    assert "\nTraps: " in shown


def test_a_preset_and_what_it_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(capsys, "preset", "dora").endswith("sets: adapter=lora:dora=true\n")
    assert json.loads(show(capsys, "presets", "dora", "--json"))["sets"] == ["adapter=lora:dora=true"]


def test_a_users_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        '"""My way."""\nfrom grainline.types import spec\n@spec\nclass Mine:\n    x: int = 1\n    """An x."""\n'
    )
    shown = show(capsys, "objective", str(file))
    assert shown.startswith(f"{file}:Mine\n\nMy way.\n")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number > 0, <= 1"),
        ({"type": "integer", "minimum": 1}, "integer >= 1"),
        ({"type": "boolean"}, "true | false"),
        ({"type": "string"}, "text"),
        ({"enum": ["a", "b"], "type": "string"}, "a | b"),
        ({"const": "a", "type": "string"}, "a"),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]}, "[number, number]"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "map of number"),
        ({"type": "object", "additionalProperties": False}, "map"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer, or null"),
        ({}, "a choice"),
    ],
)
def test_kind(schema: dict[str, Any], words: str) -> None:
    assert kind(schema) == words


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"default": 0.1}, "0.1"),
        ({"default": "x"}, "x"),
        ({"default": ""}, '""'),
        ({"default": None}, "null"),
        ({}, ""),
    ],
)
def test_default(schema: dict[str, Any], text: str) -> None:
    assert default(schema) == text
