"""``grainline export``: write a run's adapter where other tools read it."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from grainline.errors import UserError, nearest

FORMATS = ("peft", "lora", "merged")


def export(
    run: Annotated[str, typer.Argument(help="The folder of a run.")],
    to: Annotated[str, typer.Option("--to", help="The folder to write.")],
    format: Annotated[
        str, typer.Option("--format", help="peft: the adapter; lora: a plain LoRA like it; merged: a whole model.")
    ] = "peft",
    rank: Annotated[
        int | None, typer.Option("--rank", min=1, help="Of format lora; without it the smallest exact one, or 64.")
    ] = None,
    push: Annotated[
        str, typer.Option("--push-to-hub", metavar="OWNER/NAME", help="Then upload the folder; private if it is new.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a run's result for other tools.

    \b
    Examples:
      grainline export runs/first --to adapter
      grainline export runs/first --format merged --to model
      grainline export runs/first --format lora --rank 32 --to served
      grainline export runs/first --to adapter --push-to-hub me/my-adapter
    """
    if format not in FORMATS:
        raise UserError(f"no format {format!r}.", instead=nearest(format, FORMATS))

    from grainline.cli import _print

    root = importlib.import_module("grainline.runs")  # imports torch
    found = root.Run(run).export(to, format=format, rank=rank)
    if found.get("exact") is False:
        _print.note(f"a LoRA of rank {found['rank']} misses {found['relative_error']:.1%} of the change")
    if push:
        from grainline.publish import publish

        found = {**found, "hub": publish(to, push)}
    if json:
        _print.as_json(found)
        return
    for key, value in found.items():
        typer.echo(f"{key}: {_print.number(value)}")
