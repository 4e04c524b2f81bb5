"""The listed folders: singular and plural, methods and presets."""

from __future__ import annotations

import pytest

from grainline.cli import _rooms
from grainline.errors import SpecError


@pytest.mark.parametrize(
    ("name", "folder"),
    [("objective", "objectives"), ("objectives", "objectives"), ("supervision", "supervision"), ("preset", "presets")],
)
def test_room(name: str, folder: str) -> None:
    assert _rooms.room(name) == folder


def test_a_preset_is_summed_up_by_its_first_sentence() -> None:
    found = _rooms.summary("presets", "pissa")
    assert found["title"].endswith(" of each weight.")
    assert found["sets"] == ["adapter=lora:init=pissa"]
    assert "pissa" in _rooms.names("presets")
    with pytest.raises(SpecError, match="no preset 'piss'"):
        _rooms.preset("piss")
