"""Papers that are combinations: one YAML file per preset, named by the file, in the folder ``presets``.

A preset states what it is (``about``), where it comes from (``paper``) and what each of one to four rooms chooses. It
is written where a method is written, ``objective=cdpo``, and is replaced by its choices before any method is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from grainline.errors import RecipeError
from grainline.recipe.yamls import read

_HERE = Path(__file__).parent.parent / "presets"

ROOMS = MappingProxyType(
    {"supervision": "supervision", "objective": "objectives", "adapter": "adapters", "optimizer": "optimizers"}
)
"""Key of a recipe -> the room (folder) it chooses from."""


class Preset(NamedTuple):
    """A named combination of choices."""

    name: str
    paper: str
    about: str
    choices: Mapping[str, str]  # key of a recipe ("objective", "adapter", ...) -> the choice as text


@cache
def presets() -> Mapping[str, Preset]:
    """All presets by name, sorted.

    Raises:
        RecipeError: a file states something that is not a choice from a room, or no choice at all.
    """
    return MappingProxyType(
        {path.stem: _load(path) for path in sorted(_HERE.glob("*.yaml"), key=lambda path: path.stem)}
    )


def _load(path: Path) -> Preset:
    stated = dict(read(path.read_text(encoding="utf-8"), str(path)))
    paper, about = str(stated.pop("paper", "")), str(stated.pop("about", "")).strip()
    if not stated or not set(stated) <= set(ROOMS):
        raise RecipeError(
            f"a preset chooses from {', '.join(ROOMS)}; this one states {sorted(stated)}.", where=str(path)
        )
    return Preset(path.stem, paper, about, MappingProxyType({key: str(value) for key, value in stated.items()}))
