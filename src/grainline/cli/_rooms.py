"""What ``ls``, ``show`` and ``new`` share: the listed folders and what is in them."""

from __future__ import annotations

from typing import Any

from grainline import rooms
from grainline.errors import SpecError, nearest
from grainline.recipe.preset import ROOMS, Preset, presets

LISTED = (*rooms.FOLDERS, "presets")
"""The folders that ``ls`` lists: the rooms and stages of methods, and the presets."""


def room(name: str) -> str:
    """The folder that ``name`` means; ``objective`` and ``objectives`` are the same.

    Raises:
        SpecError: there is no such room.
    """
    folder = {**ROOMS, "reward": "rewards", "preset": "presets"}.get(name, name)
    if folder not in LISTED:
        raise SpecError(f"no room {name!r}.", instead=nearest(name, LISTED))
    return folder


def names(folder: str) -> list[str]:
    """Everything that ``folder`` holds."""
    return list(presets()) if folder == "presets" else rooms.names(folder)


def preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        SpecError: there is none.
    """
    if name not in presets():
        raise SpecError(f"no preset {name!r}.", instead=nearest(name, presets()))
    return presets()[name]


def summary(folder: str, name: str) -> dict[str, Any]:
    """Name, title, paper, and what a method needs or a preset sets."""
    if folder != "presets":
        return rooms.summary(rooms.load(folder, name))
    found = preset(name)
    title = found.about.partition(". ")[0].rstrip(".") + "."
    sets = [f"{key}={choice}" for key, choice in found.choices.items()]
    return {"name": name, "title": title, "paper": found.paper, "sets": sets}
