"""``grainline align``: carry out a recipe."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer


def align(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the folder of a run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="What to set differently.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the run's folder.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: folder, adapter, metrics.")] = False,
) -> None:
    """Train as a recipe says, into a run folder.

    The folder is the recipe's out. A dotted key sets a part. Instead of a recipe, model=... and data=... will do.

    \b
    Examples:
      grainline align recipe.yaml
      grainline align recipe.yaml objective=dpo:beta=0.2 seed=1 out=runs/second
      grainline align recipe.yaml model.dtype=bfloat16 optimizer.lr=1e-4
      grainline align model=smollm2-135m-instruct data=pairs.jsonl steps=200
      grainline align runs/second --resume
    """
    from grainline import recipe as recipes
    from grainline.cli import _print

    words = [recipe, *(overrides or ())]
    if Path(recipe).is_dir():  # a run's folder may have been moved since its recipe was written
        words.append(f"out={recipe}")
    from_words = "=" in recipe and not Path(recipe).exists()
    chosen = recipes.load({} if from_words else recipe, words if from_words else words[1:], notice=_print.note)

    root = importlib.import_module("grainline.runs")  # imports torch: only once the recipe is sound
    run = root.run(chosen, resume=resume)
    adapter = Path(run.folder) / "adapter"
    if not run.finished:
        _print.note(f"stopped and saved; go on with: grainline align {run.folder} --resume")
        raise typer.Exit(130)
    if not _print.is_first_process():
        return
    found = run.summary()
    if json:
        _print.as_json({"folder": str(run.folder), "adapter": str(adapter), "metrics": found})
        return
    _print.metrics(found, title=str(run.folder), before=run.before())
    typer.echo(f"adapter: {adapter}")
