"""``grainline check``: what one wants to know of preference data before training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from grainline.data.fit import Fit
    from grainline.data.lengths import Bias
    from grainline.data.problems import Group, Problem
    from grainline.data.repeats import Prompts
    from grainline.data.survey import Survey

SHOWN = 20
"""Rows and aspects that are named on the page; JSON holds more."""


def check(
    data: Annotated[str, typer.Argument(help="Records: a file, folder, hub id, or house.")],
    model: Annotated[str, typer.Option("--model", help="Count tokens of this model: hub id, folder or alias.")] = "",
    against: Annotated[str, typer.Option("--against", help="A test set that shall share no prompt.")] = "",
    split: Annotated[str, typer.Option("--split", help="Split of a hub id or folder.")] = "train",
    against_split: Annotated[str, typer.Option("--against-split", help="Split of the test set.")] = "test",
    format: Annotated[str, typer.Option("--format", help="A public data set's own columns, in both.")] = "",
    max_length: Annotated[int, typer.Option("--max-length", min=2, help="Tokens of prompt + answer.")] = 1024,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: all that was found.")] = False,
) -> None:
    """Check preference data before training.

    Every problem by row, repeats and contradictions, prompts shared with a test set, lengths and their bias, aspects.

    Exit status 2 when rows cannot be used, 0 with warnings. Without --model nothing is tokenised.

    \b
    Examples:
      grainline check pairs.jsonl
      grainline check pairs.jsonl --model HuggingFaceTB/SmolLM2-360M-Instruct --max-length 2048
      grainline check house --against house --json
    """
    from grainline.cli import _print
    from grainline.data import load
    from grainline.data.survey import survey

    name, rows = load.stream(os.path.expanduser(data), split=split, format=format)
    test = _prompts(against, split=against_split, format=format) if against else None
    fit = _fit(model, max_length) if model else None
    with _progress(name) as progress:
        found = survey(rows, name=name, fit=fit, test=test, progress=progress)
    remarks = _remarks(fit)
    if json:
        _print.as_json(as_dict(found, fit, test, remarks))
    else:
        _show(found, fit, test, remarks)
    _refuse(found)


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int], None]]:
    """Counts rows on a terminal; elsewhere it says nothing."""
    from rich.text import Text

    from grainline.progress import console

    with console().status(Text(f"reading {name}")) as status:
        yield lambda rows: status.update(Text(f"reading {name}: {rows:,} rows"))


def _prompts(against: str, *, split: str, format: str) -> Prompts:
    from grainline.cli import _print
    from grainline.data import load, survey
    from grainline.errors import DataError

    name, rows = load.stream(os.path.expanduser(against), split=split, format=format)
    found, unread = survey.prompts(rows)
    if not len(found.places):
        raise DataError("no row of the test set can be used.", where=name, instead="Check it by itself first.")
    if unread:
        _print.note(f"{unread} rows of the test set {name} cannot be used; their prompts are not compared")
    return found


def _fit(model: str, max_length: int) -> Fit:
    from grainline import models
    from grainline.data.fit import Fit

    return Fit(models.load_tokenizer(models.Choice(model)), max_length=max_length)


def _remarks(fit: Fit | None) -> list[str]:
    from grainline.data.audit import audit

    return audit(fit.tokenizer) if fit else []


def _refuse(found: Survey) -> None:
    """Exit status 2 if training would refuse this data."""
    from grainline.errors import DataError

    errors = [group for group in found.problems if group.severity == "error"]
    bad, all = found.counts["unusable"], found.counts["rows"]
    if bad:
        instead = "Mend them, or set skip_bad_rows=true to leave them out."
        raise DataError(f"{bad:,} of {all:,} rows cannot be used.", where=found.name, instead=instead)
    if errors:
        raise DataError(errors[0].problems[0].what, where=found.name, instead=errors[0].instead)


def as_dict(found: Survey, fit: Fit | None, test: Prompts | None, remarks: Sequence[str]) -> dict[str, Any]:
    """What ``--json`` prints; of each kind of problem the first ``problems.KEPT`` rows."""
    return {
        "data": found.name,
        "counts": dict(found.counts),
        "passed_over": dict(found.passed_over),
        "problems": [
            {"kind": group.kind, "severity": group.severity, "count": group.number}
            | {"rows": [_problem(problem) for problem in group.problems]}
            for group in found.problems
        ],
        "lengths": {
            unit: {part: lengths._asdict() for part, lengths in parts.items()} for unit, parts in found.lengths.items()
        },
        "length_bias": found.bias._asdict() if found.bias else None,
        "aspects": {name: aspect._asdict() for name, aspect in found.aspects.items()},
        "max_length": fit.max_length if fit else None,
        "tokenizer": list(remarks),
        "test_rows": len(test.places) if test else None,
    }


def _problem(problem: Problem) -> dict[str, str]:
    found = {"where": problem.where, "what": problem.what, "instead": problem.instead, "beside": problem.beside}
    return {key: value for key, value in found.items() if value}


def _show(found: Survey, fit: Fit | None, test: Prompts | None, remarks: Sequence[str]) -> None:
    from grainline.cli import _print

    _print.table((found.name, "", ""), list(_counts(found, fit)))
    parts = [(part, unit, _lengths(one)) for unit, whole in found.lengths.items() for part, one in whole.items()]
    rows = [(part, unit, *numbers) for part, unit, numbers in parts]
    _print.table(("lengths", "", "mean", "median", "95 %", "longest"), rows)
    if found.bias:
        print(f"Length: {in_words(found.bias)}\n")
    if found.aspects:
        shown = [_aspect(name, aspect, found.counts["rows"]) for name, aspect in found.aspects.items()]
        columns = ("aspects", "rows", "", "spans", *_judged(found))
        _print.table(columns, shown[:SHOWN])
        if len(shown) > SHOWN:
            print(f"and {len(shown) - SHOWN} aspects more\n")
    for remark in remarks:
        print(f"Tokenizer: {remark}")
    if found.problems:
        place, problems = _problems(found.problems)
        _print.table(("", "rows", "problem", "what to do", f"where ({place})" if place else "where"), problems)
    print(_verdict(found, test))


def _counts(found: Survey, fit: Fit | None) -> Iterator[tuple[str, str, str]]:
    rows = found.counts["rows"]
    for what, number in found.counts.items():
        what = what.replace("max_length", f"{fit.max_length} tokens") if fit else what
        yield what, f"{number:,}", "" if what in ("rows", "answers cut") else _percent(number, rows)
    for what, number in found.passed_over.items():
        yield f"passed over: {what}", f"{number:,}", ""


def _percent(part: float, whole: float) -> str:
    """
    >>> _percent(1, 3), _percent(1, 1000), _percent(2, 2)
    ('33 %', '0.1 %', '100 %')
    """
    share = 100 * part / whole
    return f"{share:.0f} %" if share >= 9.5 else f"{share:.1g} %"


def _lengths(one: Any) -> tuple[str, ...]:
    return (f"{one.mean:,.1f}", f"{one.median:,}", f"{one.high:,}", f"{one.longest:,}")


def _judged(found: Survey) -> tuple[str, str]:
    pairs = "pairs" in found.counts
    return ("mean score: chosen", "rejected") if pairs else ("mean score: desirable", "undesirable")


def _aspect(name: str, aspect: Any, rows: int) -> tuple[str, ...]:
    means = ("" if mean is None else f"{mean:.2f}" for mean in (aspect.chosen, aspect.rejected))
    return (name or "(no name)", f"{aspect.rows:,}", _percent(aspect.rows, rows), f"{aspect.spans:,}", *means)


def in_words(bias: Bias) -> str:
    """How much length alone would explain, for people."""
    digits = 0 if bias.high - bias.low >= 0.02 else 1
    low, share, high = (f"{100 * value:.{digits}f}" for value in (bias.low, bias.share, bias.high))
    ties = f", {bias.ties:,} of them ties that count one half" if bias.ties else ""
    longer = 100 * (bias.chosen / bias.rejected - 1)
    than = f"chosen answers are {abs(longer):.0f} % {'longer' if longer >= 0 else 'shorter'} in the mean"
    side = "longer" if bias.share > 0.5 else "shorter"
    if bias.low <= 0.5 <= bias.high:
        means = "length says nothing of who wins."
    elif abs(bias.share - 0.5) < 0.1:
        means = f"a slight lean to the {side} answer."
    else:
        means = f"a model can learn to be {side} instead of better."
    return (
        f"'the longer answer wins' is right on {share} % [{low}, {high}] of {bias.pairs:,} pairs "
        f"(counted in {bias.unit}{ties}); {than}: {means}"
    )


def _problems(groups: Sequence[Group]) -> tuple[str, list[tuple[str, ...]]]:
    """The file that all places are in, if it is one, and the lines of the table."""
    places = [
        place for group in groups for p in group.problems[:SHOWN] for place in (p.where, p.beside) if ":" in place
    ]
    files = {place.rpartition(":")[0] if place.rpartition(":")[2] else place for place in places}
    file = files.pop() if len(files) == 1 else ""
    return file, [
        (group.severity, f"{group.number:,}", _what(group), group.instead, _where(group, file)) for group in groups
    ]


def _what(group: Group) -> str:
    """The kind; where names and numbers were left out of it that are the same in every row, with them."""
    from grainline.data.problems import LEFT_OUT

    said = {problem.what.rstrip(".") for problem in group.problems}
    return said.pop() if len(said) == 1 and LEFT_OUT in group.kind else group.kind


def _where(group: Group, file: str) -> str:
    def short(place: str) -> str:
        return place.removeprefix(f"{file}:") if file else place

    shown = [
        short(problem.where) + (f" ~ {short(problem.beside)}" if problem.beside else "")
        for problem in group.problems[:SHOWN]
    ]
    more = group.number - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _verdict(found: Survey, test: Prompts | None) -> str:
    from grainline.data.repeats import SHARED

    number: Mapping[str, int] = {
        severity: sum(group.number for group in found.problems if group.severity == severity)
        for severity in ("error", "warning")
    }
    said = [f"{n:,} {what}{'' if n == 1 else 's'}" for what, n in number.items() if n] or ["no problem found"]
    if test and not any(group.kind == SHARED for group in found.problems):
        said.append(f"no prompt is shared with the test set ({len(test.places):,} rows)")
    return f"{found.name}: {'; '.join(said)}."
