"""``grainline evaluate``: measure a run, or a model alone, on held-out data."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from grainline.errors import UserError


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="The folder of a run, or a model's name.")],
    data: Annotated[str, typer.Option("--data", help="Records: a file, folder or hub id.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="How to measure; docs/evaluation.md lists all.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of a hub id or folder.")] = "test",
    format: Annotated[str, typer.Option("--format", help="A public data set's own columns.")] = "",
    name: Annotated[str, typer.Option("--name", help="What to call the data; else its file's name.")] = "",
    measure: Annotated[str, typer.Option("--measure", help="Families, a comma between; or all.")] = "",
    generate: Annotated[int, typer.Option("--generate", min=0, help="Answer so many of the prompts.")] = 0,
    judge: Annotated[str, typer.Option("--judge", help="A method of rewards/ that compares the answers.")] = "",
    against: Annotated[str, typer.Option("--against", help="Another run, to be compared with.")] = "",
    out: Annotated[str, typer.Option("--out", help="A model's folder of results; else evaluations/MODEL.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON: name -> figures.")] = False,
) -> None:
    """Measure a run's adapter on data it was not trained on.

    Families: preference, displacement, generation, geometry, forgetting, control, documents, masks. What is measured is
    written to RUN/evaluation/NAME/ and not measured again.

    \b
    Examples:
      grainline evaluate runs/first --data test.jsonl
      grainline evaluate runs/first --data trl-lib/ultrafeedback_binarized --split test --json
      grainline evaluate runs/first --data test.jsonl --generate 64 --judge rules:measure=length temperature=0.7
      grainline evaluate runs/second --data test.jsonl --against runs/first --measure all
      grainline evaluate smollm2-135m-instruct --data test.jsonl --measure preference,forgetting
    """
    from grainline.cli import _print
    from grainline.evaluation import measures
    from grainline.recipe import HeldOutChoice

    families = measures.FAMILIES if measure == "all" else [part for part in measure.split(",") if part]
    chosen: dict[str, Any] = {"families": list(families), "generate": generate, "judge": judge}
    chosen = {key: value for key, value in chosen.items() if value} | measures.read(options or ())
    if measure == "all":  # these two ask for something that the data may not have
        chosen["families"] = [f for f in chosen["families"] if f not in ("control", "documents")]
    measures.made(**chosen)  # a mistake is named before torch is imported
    sets = {
        name or Path(data).name.partition(".")[0]: HeldOutChoice(
            path=os.path.expanduser(data), split=split, format=format
        )
    }

    if (Path(run).expanduser() / "recipe.yaml").is_file() or not _is_model(run):
        if out:
            raise UserError("a run keeps its results itself.", where="--out", instead="Leave it out.")
        root = importlib.import_module("grainline.runs")  # imports torch
        found = root.Run(os.path.expanduser(run)).evaluate(sets, against=against or None, **chosen)
    else:
        if against:
            raise UserError("a model alone is compared with nobody.", where="--against", instead="Evaluate a run.")
        root = importlib.import_module("grainline.assessment.facts")
        found = root.evaluate_model(run, sets, out=out, **chosen)
    if not _print.is_first_process():
        return
    if json:
        _print.as_json(found)
        return
    for key, metrics in found.items():
        _print.metrics(metrics, title=key)


def _is_model(name: str) -> bool:
    """Whether ``name`` is a model's: a folder with its configuration, a file, or a name of no folder. What looks like a
    run's folder and is none says so itself."""
    folder = Path(name).expanduser()
    return (folder / "config.json").is_file() if folder.is_dir() else folder.is_file() or not _looks_like_a_run(name)


def _looks_like_a_run(name: str) -> bool:
    return name.startswith(("runs/", "./", "../", "/", "~"))
