"""``grainline score``: let a reward judge answers, piece by piece."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer


def score(
    data: Annotated[str, typer.Argument(help="Rows: a file, folder, hub id, or house.")],
    reward: Annotated[str, typer.Option("--reward", help="NAME or NAME:key=value; grainline ls rewards.")],
    out: Annotated[str, typer.Option("--out", help="A .jsonl file.")],
    aspects: Annotated[str, typer.Option("--aspects", help="a,b: what is judged; else the answer all in all.")] = "",
    by: Annotated[
        Literal["sentence", "answer"], typer.Option("--by", help="Pieces that are judged; answer: numbers alone.")
    ] = "sentence",
    between: Annotated[
        str, typer.Option("--between", help="WORST,BEST of a reward without bounds, to make a matrix of its scores.")
    ] = "",
    language: Annotated[str, typer.Option("--language", help="Of the sentences.")] = "en",
    replace: Annotated[
        bool, typer.Option("--replace", help="Scores take the place of what rows say of parts of their answers.")
    ] = False,
    split: Annotated[str, typer.Option("--split", help="Split of a hub id or folder.")] = "train",
    format: Annotated[str, typer.Option("--format", help="A public data set's own columns.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first rows.")] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read, and count them.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of a reward that draws.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: file, and the facts of what was done.")] = False,
) -> None:
    """Score answers with a reward.

    The rows come out with chosen_score, chosen_segments, chosen_aspect_scores and so on, and align can train on them;
    what was done stands in OUT.provenance.json. A job that was stopped, in whatever way, goes on with the same command.

    \b
    Examples:
      grainline score pairs.jsonl --reward head:path=heads/house --aspects correctness,safety --out scored.jsonl
      grainline score pairs.jsonl --reward model:model=ORG/REWARD --by answer --out scored.jsonl
      grainline align recipe.yaml data=scored.jsonl supervision=segments objective=2d-dpo
    """
    from grainline.cli import _print
    from grainline.scoring import score as carry

    names = [name.strip() for name in aspects.split(",") if name.strip()]
    made = carry(
        os.path.expanduser(data),
        reward,
        os.path.expanduser(out),
        aspects=names,
        by=by,
        between=_bounds(between),
        language=language,
        replace=replace,
        split=split,
        format=format,
        limit=limit,
        skip_bad_rows=skip_bad_rows,
        seed=seed,
        quiet=json,
    )
    if json:
        _print.as_json({"path": str(made.path), **made.facts})
        return
    read, last = made.facts["source"]["rows"], made.facts["made"][-1]
    _print.note(f"{read:,} rows read, {last['made']:,} scored by {reward}")
    print(made.path)


def _bounds(text: str) -> tuple[float, float] | None:
    from grainline.errors import SpecError

    if not text:
        return None
    try:
        worst, best = map(float, text.split(","))
    except ValueError:
        raise SpecError(
            f"{text!r} are no bounds.", where="--between", instead="Write WORST,BEST, as in -5,5."
        ) from None
    return worst, best
