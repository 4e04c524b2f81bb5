"""``grainline curate``: carry preference data through steps that make it better."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grainline.errors import RecipeError, UserError

if TYPE_CHECKING:
    from grainline.curate import Curated


def curate(
    steps: Annotated[list[str] | None, typer.Argument(metavar="[STEP]...", help="NAME or NAME:key=value.")] = None,
    data: Annotated[str, typer.Option("--data", help="Rows: a file, folder, hub id, or house.")] = "",
    out: Annotated[str, typer.Option("--out", help="A .jsonl file, or a folder of one file a split.")] = "",
    recipe: Annotated[str, typer.Option("--recipe", help="Take steps, data and seed from this recipe.")] = "",
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of all that is drawn (0).")] = None,
    split: Annotated[str, typer.Option("--split", help="Split of a hub id or folder.")] = "train",
    format: Annotated[str, typer.Option("--format", help="A public data set's own columns.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first rows.")] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read, and count them.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: file, and the facts of what was done.")] = False,
) -> None:
    """Make preference data better, step by step.

    Each step reads what the one before it made. Rows in and out of each step, and why rows were dropped, stand in
    OUT.provenance.json. A job that was stopped, in whatever way, goes on with the same command. With --recipe and no
    --out the rows are kept where align finds them.

    \b
    Examples:
      grainline curate dedupe filter:longest=4000 segment --data pairs.jsonl --out better.jsonl
      grainline curate segment 'score:reward=(rules:measure=length)' --data pairs.jsonl --out scored.jsonl
      grainline curate split:test=0.1 --data pairs.jsonl --out parts
      grainline curate --recipe recipe.yaml
    """
    from grainline.cli import _print
    from grainline.curate import cached
    from grainline.curate import curate as carry

    if recipe:
        if steps or data:
            raise UserError("--recipe says which steps and which rows.", instead="Leave them out, or --recipe.")
        jobs = _of_recipe(recipe, seed)
    else:
        one = {"steps": steps or (), "seed": seed or 0, "split": split, "format": format}
        jobs = [{"source": _given(data, "--data"), "skip_bad_rows": skip_bad_rows, **one}]
    if recipe and not out:
        made = [cached(**job, limit=limit, quiet=json) for job in jobs]
    elif len(jobs) > 1:
        raise UserError("the recipe has several sources, each is curated by itself.", instead="Leave out --out.")
    else:
        made = [carry(**jobs[0], out=_given(out, "--out"), limit=limit, quiet=json)]
    if json:
        _print.as_json([{"path": str(one.path), **one.facts} for one in made])
        return
    for curated in made:
        _show(curated)


def _given(value: str, option: str) -> str:
    if not value:
        raise UserError(f"{option} is missing.", instead="Write --data ROWS and --out FILE.jsonl, or --recipe FILE.")
    return os.path.expanduser(value)


def _of_recipe(file: str, seed: int | None) -> list[dict[str, Any]]:
    """What align would carry out: the same steps for each of the recipe's sources."""
    from grainline import recipe as recipes
    from grainline.cli import _print

    read = recipes.load(file, notice=_print.note)
    if not read.curate:
        raise RecipeError("there are no steps.", where=f"{file} curate", instead="Write curate: [STEP, ...].")
    how = {"steps": read.curate, "seed": read.seed if seed is None else seed, "skip_bad_rows": read.skip_bad_rows}
    return [{"source": one.path, "split": one.split, "format": one.format, **how} for one in read.data]


def _show(made: Curated) -> None:
    from grainline.cli import _print

    source = made.facts["source"]
    rows = [("read", "", f"{source['rows']:,}", _reasons(source["passed_over"] | {"unusable": source["left_out"]}))]
    rows += [
        (one["step"], f"{one['rows']:,}", f"{one['made']:,}", _reasons(one["dropped"])) for one in made.facts["made"]
    ]
    _print.table(("step", "rows in", "rows out", "left out"), rows, title=source["path"])
    print(made.path)


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{why} {number:,}" for why, number in dropped.items() if number)
