"""``grainline report``: a run, or several, on one page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from grainline.errors import UserError, nearest

FORMATS = ("card", "html", "md")


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    out: Annotated[str, typer.Option("--out", help="The file to write; else RUN/report.html.")] = "",
    format: Annotated[str, typer.Option("--format", help="html: a page; md: text; card: a model card.")] = "html",
) -> None:
    """Show a run on one page: what changed, how, at what cost.

    A page needs no network, and is written into the run's folder, or here if it shows several runs. Text
    and model cards go to standard output unless --out names a file.

    \b
    Examples:
      grainline report runs/first
      grainline report runs/first runs/second --out compare.html
      grainline report runs/first --format md
      grainline report runs/first --format card --out adapter/README.md
    """
    if format not in FORMATS:
        raise UserError(f"no format {format!r}.", where="--format", instead=nearest(format, FORMATS))
    if format == "card" and len(runs) > 1:
        raise UserError("a model card is of one run.", where="--format card", instead="Name one.")

    from grainline import atomic

    made = _made(runs, format)
    if format != "html" and not out:
        typer.echo(made, nl=False)
        return
    file = Path(os.path.expanduser(out or Path(runs[0] if len(runs) == 1 else ".") / "report.html"))
    if file.is_dir():
        raise UserError("a folder is there.", where=str(file), instead="Name a file, such as report.html.")
    atomic.text(file, made)
    typer.echo(file)


def _made(runs: list[str], format: str) -> str:
    if format == "card":
        from grainline.report.card import card

        return card(runs[0])
    if format == "md":
        from grainline.report.markdown import text

        return text(runs)
    from grainline.report.page import page

    return page(runs).html
