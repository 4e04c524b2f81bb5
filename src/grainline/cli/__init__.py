"""The command line: one file per verb. ``cli/align.py`` is ``grainline align``; nothing is registered anywhere.

A verb's module holds a function of its own name, whose docstring is the help. It imports what is light at the top and
everything else inside the function, so that ``grainline --help`` answers at once. Results go to standard output,
progress and remarks to standard error. Exit status: 0 done; 1 the run failed; 2 the input is at fault; 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from grainline.errors import GrainlineError, UserError

HELP = """Fine-grained, parameter-efficient preference alignment of language models.

\b
Examples:
  grainline demo                                   a first aligned adapter, in minutes
  grainline ls objectives                          which methods there are
  grainline show objective dpo                     equation, options, needs
  grainline check pairs.jsonl                      what is wrong with the data
  grainline curate dedupe --data pairs.jsonl --out better.jsonl     better data, step by step
  grainline peek pairs.jsonl                       which tokens will speak, how loudly
  grainline plan recipe.yaml                       what it will take
  grainline align recipe.yaml objective=dpo seed=1 train
  grainline evaluate runs/first --data test.jsonl  measure
  grainline export runs/first --to adapter         ship
"""


def verbs() -> list[str]:
    """The names of all commands: the files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def app() -> typer.Typer:
    """The application, with the command of every verb."""
    found = typer.Typer(
        name="grainline",
        cls=_Sorted,
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    found.callback(help=HELP)(_options)
    for verb in verbs():
        face = getattr(importlib.import_module(f"grainline.cli.{verb}"), verb)
        if isinstance(face, typer.Typer):  # a verb of several commands, such as grainline reward train
            found.add_typer(face, name=verb)
        else:
            found.command(verb)(face)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Carry out a command line and exit; a mistake of the user's becomes one message, without a traceback."""
    try:
        app()(arguments)
    except GrainlineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except BrokenPipeError:  # the reader has seen enough: grainline ls | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a folder that is a file, a disk that is full, a file that may not be read
        print(f"error: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


class _Sorted(typer.core.TyperGroup):
    """Verbs in the order of the alphabet, those of several commands too."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"grainline {version('grainline')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Options of ``grainline`` itself."""
