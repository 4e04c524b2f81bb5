"""``grainline ls``."""

from __future__ import annotations

import json

import pytest

from grainline import cli, rooms
from grainline.recipe.preset import presets


def ls(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["ls", *arguments])
    assert not caught.value.code
    return capsys.readouterr().out


def test_all_rooms_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(ls(capsys, "--json"))
    names = {room: [method["name"] for method in methods] for room, methods in found.items()}
    assert names == {**{room: rooms.names(room) for room in rooms.FOLDERS}, "presets": list(presets())}
    assert all(method["title"] for methods in found.values() for method in methods)


@pytest.mark.parametrize("room", ["objectives", "objective"])
def test_one_room_as_a_table(room: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ls(capsys, room).splitlines()
    assert lines[0] == "objectives"
    row = next(line for line in lines if line.split()[:1] == ["dpo"])
    assert "arXiv:2305.18290" in row
    assert row.endswith("pairs, reference")
    assert "adamw" not in "".join(lines)
