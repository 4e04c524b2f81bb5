"""``grainline ls``: which methods there are."""

from __future__ import annotations

from typing import Annotated

import typer


def ls(
    room: Annotated[
        str | None, typer.Argument(help="supervision, objectives, adapters, optimizers, rewards, curation or presets.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: room -> methods.")] = False,
) -> None:
    """List the methods of each room, or of one.

    \b
    Examples:
      grainline ls
      grainline ls objectives
      grainline ls adapters --json
    """
    from grainline.cli import _print, _rooms

    folders = [_rooms.room(room)] if room else list(_rooms.LISTED)
    found = {folder: [_rooms.summary(folder, name) for name in _rooms.names(folder)] for folder in folders}
    if json:
        _print.as_json(found)
        return
    for folder, methods in found.items():
        last = "sets" if folder == "presets" else "needs"
        rows = [(m["name"], m["title"], m["paper"], ", ".join(m[last])) for m in methods]
        _print.table(("name", "title", "paper", last), rows, title=folder)
