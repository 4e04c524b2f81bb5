"""``grainline evaluate``: measure a run on held-out data."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[str, typer.Argument(help="The folder of a run.")],
    data: Annotated[str, typer.Option("--data", help="Records: a file, folder or hub id.")],
    split: Annotated[str, typer.Option("--split", help="Split of a hub id or folder.")] = "test",
    format: Annotated[str, typer.Option("--format", help="A public data set's own columns.")] = "",
    name: Annotated[str, typer.Option("--name", help="What to call the data; else its file's name.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON: name -> metrics.")] = False,
) -> None:
    """Measure a run's adapter on data it was not trained on.

    \b
    Examples:
      grainline evaluate runs/first --data test.jsonl
      grainline evaluate runs/first --data trl-lib/ultrafeedback_binarized --split test --json
    """
    from grainline.cli import _print
    from grainline.recipe import HeldOutChoice

    choice = HeldOutChoice(path=os.path.expanduser(data), split=split, format=format)

    root = importlib.import_module("grainline.runs")  # imports torch
    found = root.Run(run).evaluate({name or Path(data).name.partition(".")[0]: choice})
    if not _print.is_first_process():
        return
    if json:
        _print.as_json(found)
        return
    for key, metrics in found.items():
        _print.metrics(metrics, title=key)
