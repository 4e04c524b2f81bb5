"""``grainline reward``: teach a reward head, and measure any reward."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

reward = typer.Typer(
    help="""Teach a reward head, and measure any reward.

    \b
    Examples:
      grainline reward train house --out heads/house
      grainline reward evaluate head:path=heads/house --data house
      grainline score pairs.jsonl --reward head:path=heads/house --out scored.jsonl
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@reward.command()
def train(
    data: Annotated[str, typer.Argument(help="Annotated records: a file, folder, hub id, or house.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the head.")],
    model: Annotated[str, typer.Option("--model", help="Whose hidden states: hub id, folder or alias.")] = (
        "smollm2-135m-instruct"
    ),
    learn: Annotated[
        Literal["auto", "segments", "pairs", "answers"], typer.Option("--learn", help="From spans, pairs or labels.")
    ] = "auto",
    aspects: Annotated[str, typer.Option("--aspects", help="a,b: these alone; else all that the data judge.")] = "",
    unmarked: Annotated[
        Literal["auto", "unjudged", "marked", "right"],
        typer.Option(
            "--unmarked", help="Text without a span: unjudged; right in answers that carry a mark; right everywhere."
        ),
    ] = "auto",
    layers: Annotated[str, typer.Option("--layers", help="Shares of the depth: 0.5, or 0.5,1.")] = "0.5",
    pool: Annotated[
        Literal["auto", "mean", "last"],
        typer.Option("--pool", help="Of a piece's tokens; auto: last of segments, mean of whole answers."),
    ] = "auto",
    loss: Annotated[
        Literal["auto", "likelihood", "squares", "ordinal"], typer.Option("--loss", help="auto = likelihood.")
    ] = "auto",
    learning: Annotated[
        str, typer.Option("--learning", help="How the head learns: backprop, equilibrium:epochs=20...")
    ] = "backprop",
    members: Annotated[int, typer.Option("--members", min=2, help="Heads, each taught without one fold.")] = 5,
    split: Annotated[str, typer.Option("--split", help="Split of a hub id or folder.")] = "train",
    format: Annotated[str, typer.Option("--format", help="A public data set's own columns.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first rows.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the folds.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: what the head's file says.")] = False,
) -> None:
    """Teach a small head on a frozen model's hidden states.

    \b
    Examples:
      grainline reward train house --out heads/house
      grainline reward train errors.jsonl --model HuggingFaceTB/SmolLM2-360M-Instruct --layers 0.5,0.75 --out heads/qa
      grainline reward train pairs.jsonl --learn pairs --out heads/pairs
    """
    from grainline import reward_training
    from grainline.cli import _print

    plan = reward_training.Plan(
        model=model,
        learn=learn,
        aspects=_names(aspects),
        unmarked=unmarked,
        layers=_shares(layers),
        pool=pool,
        loss=loss,
        learning=learning,
        members=members,
        seed=seed,
    )
    source = os.path.expanduser(data)
    facts = reward_training.train(source, out, plan, split=split, format=format, limit=limit, quiet=json)
    if json:
        _print.as_json(facts)
        return
    pieces, prompts = facts["taught"]["pieces"], facts["taught"]["prompts"]
    _print.metrics(facts["unseen"], title=f"{out}: {pieces:,} pieces of {prompts:,} prompts")
    _print.note("each piece was scored by the member that was taught without its prompt")


@reward.command()
def evaluate(
    choice: Annotated[str, typer.Argument(metavar="REWARD", help="A reward as text, e.g. head:path=heads/house.")],
    data: Annotated[str, typer.Option("--data", help="Judged records: a file, folder, hub id, or house.")],
    aspects: Annotated[str, typer.Option("--aspects", help="a,b: these alone; else all that the data judge.")] = "",
    unmarked: Annotated[
        Literal["auto", "unjudged", "marked", "right"],
        typer.Option("--unmarked", help="What text without a span means, as for train."),
    ] = "auto",
    split: Annotated[str, typer.Option("--split", help="Split of a hub id or folder.")] = "test",
    format: Annotated[str, typer.Option("--format", help="A public data set's own columns.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first rows.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the reward, and of the intervals.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: metrics and reliability.")] = False,
) -> None:
    """Measure a reward on rows that people judged: pieces aspect by aspect, and pairs.

    \b
    Examples:
      grainline reward evaluate head:path=heads/house --data house
      grainline reward evaluate rules:measure=readability --data errors.jsonl --aspects relevance --json
    """
    from grainline import reward_training
    from grainline.cli import _print

    source = os.path.expanduser(data)
    found = reward_training.evaluate(
        choice, source, aspects=_names(aspects), unmarked=unmarked, split=split, format=format, limit=limit, seed=seed,
        quiet=json,
    )  # fmt: skip
    if json:
        _print.as_json(found._asdict())
        return
    _print.metrics(found.metrics, title=f"{choice} on {Path(data).name}")
    for aspect, rows in found.reliability.items():
        cells = [
            (f"{row['from']:.1f} to {row['to']:.1f}", str(row["pieces"]), f"{row['said']:.2f}", f"{row['right']:.2f}")
            for row in rows
        ]
        _print.table(("score", "pieces", "said", "people said"), cells, title=aspect or "overall")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _shares(text: str) -> tuple[float, ...]:
    from grainline.errors import SpecError

    try:
        found = tuple(float(share) for share in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < share <= 1 for share in found):
        raise SpecError(f"{text!r} are no shares of the depth.", where="--layers", instead="Write 0.5, or 0.5,1.")
    return found
