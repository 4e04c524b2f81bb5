"""``grainline demo``: a first aligned adapter, watched from data to answer."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def demo(
    out: Annotated[str, typer.Option("--out", help="The run's folder; else the next free runs/demo-N.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of the adapter's start and the order of rows.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: folder, adapter, before, after, sample.")] = False,
) -> None:
    """Align a small model on house, and see what changed.

    SmolLM2-135M learns from the packaged data set house with 2d-dpo, in a few minutes on two cores.

    \b
    Examples:
      grainline demo
      grainline demo --seed 1 --out runs/second
    """
    from grainline import recipe as recipes
    from grainline.cli import _print
    from grainline.data import files

    file = files.packaged("house") / "recipe.yaml"
    recipe = dataclasses.replace(recipes.load(file), out=out or _free("runs/demo"), seed=seed)
    root = importlib.import_module("grainline.runs")  # imports torch
    _print.note(
        "house: pairs of answers to everyday questions; each sentence is scored from 0 to 4 on helpfulness,\n"
        "correctness, safety, completeness and clarity. Look at it: grainline peek house -n 1"
    )
    run = root.run(recipe)
    if not run.finished:
        _print.note(f"stopped and saved; go on with: grainline align {run.folder} --resume")
        raise typer.Exit(130)
    before, after, sample = run.before(), run.summary(), run.samples()[0]
    if json:
        _print.as_json(
            {"folder": str(run.folder), "adapter": str(run.adapter), "before": before, "after": after, "sample": sample}
        )
        return
    _tell(before, after, sample)
    typer.echo(f"adapter    {run.adapter}    (PEFT: PeftModel.from_pretrained reads it)")
    typer.echo(f"repeat it  grainline align {file} seed={seed} out=runs/again")
    typer.echo(f"your data  grainline align {file} data=pairs.jsonl evaluation.data=test.jsonl out=runs/mine")


def _tell(before: Mapping[str, Any], after: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
    """What changed, in the order in which one asks."""
    from grainline.cli import _print

    prefix = "eval_house_"
    margins = [name for name in after if name.startswith(f"{prefix}rewards/") and name.endswith("/margins")]
    names = {
        "held-out accuracy (ties count one half)": f"{prefix}rewards/accuracies",
        "likelihood accuracy": f"{prefix}likelihood/accuracies",
        "margin, nats x beta": f"{prefix}rewards/margins",
        **{f"  where answers differ in {name.split('/')[1]}": name for name in margins if name.count("/") == 2},
    }
    rows = [(label, _print.interval(name, before), _print.interval(name, after)) for label, name in names.items()]
    pairs = f"{after[f'{prefix}rows']:.0f} held-out pairs, 95 % intervals over prompts"
    _print.table((pairs, "before", "after"), rows)
    asked = sample["prompt"] if isinstance(sample["prompt"], str) else sample["prompt"][-1]["content"]
    for title, words in (("asked", asked), ("before", sample["reference"]), ("after", sample["policy"])):
        typer.echo(f"{title:>6}  " + "\n        ".join(_lines(words)))
    typer.echo("")


def _lines(words: str, width: int = 100) -> list[str]:
    import textwrap

    return [piece for line in words.splitlines() for piece in textwrap.wrap(line, width) or [""]]


def _free(stem: str) -> str:
    """The first of stem-1, stem-2... that nobody has used."""
    return next(f"{stem}-{n}" for n in range(1, 10_000) if not Path(f"{stem}-{n}").exists())
