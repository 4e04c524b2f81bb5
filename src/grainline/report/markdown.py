"""The report as text: Markdown that also reads well in a terminal. Needs neither matplotlib nor jinja2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from grainline.report import evaluated, evidence, facts, headline, read, side_by_side, words
from grainline.report.read import RunFiles

LONGEST = 2_000
"""Characters of an answer or a prompt that are shown."""
MOST = 6
"""Samples that are shown."""


def text(folders: Sequence[str | Path]) -> str:
    """One run, or several side by side, as Markdown.

    Raises:
        RunError: not a run, or a damaged file.
    """
    runs = read.runs(folders)
    several = len(runs) > 1
    said = headline.several(runs) if several else headline.one(runs[0])
    parts = [f"# {words.inline(' · '.join(files.name for files in runs))}", f"**{words.inline(said.sentence)}**"]
    parts += ["\n".join(f"- {_coded(line)}" for line in said.next)] if said.next else []
    parts += [] if several else reasons(runs[0], evidence.TITLES)
    parts += [part for files in runs if (part := _warnings(files, several))]
    parts += _compared(runs) if several else [*changes(runs[0]), *evaluations(runs[0])]
    parts += _aspects(runs)
    parts += _samples(runs)
    for files in runs:
        parts += [f"## {words.inline(files.name)}"] if several else []
        parts += _origin(files, "###" if several else "##")
    return "\n\n".join(parts) + "\n"


def reasons(files: RunFiles, titles: Mapping[str, str]) -> list[str]:
    """What speaks for the adapter and against it: a list below each of ``titles`` (kind -> title)."""
    found = evidence.reasons(files)
    lists = {
        kind: [f"- {words.inline(words.sentence(one.text))}" for one in found if one.kind == kind] for kind in titles
    }
    return [f"{titles[kind]}:\n\n" + "\n".join(lines) for kind, lines in lists.items() if lines]


def changes(files: RunFiles) -> list[str]:
    """Before and after, a table for each held-out set."""
    parts = []
    for name in facts.sets(files):
        old, rows = facts.before(files).get(name), facts.changes(files, name)
        if old is not None:
            shown = table(("metric", "before", "after", "change"), [r[1:] for r in rows])
        else:
            shown = table(("metric", "measured"), [(r.label, r.after) for r in rows])
        there = facts.after(files).get(name) or old or {}
        count = f", {words.whole(there['rows'])} rows" if "rows" in there else ""
        parts += [f"## Held out: {words.inline(name)}{count}", shown]
    return parts


def evaluations(files: RunFiles) -> list[str]:
    """What was measured later, figure by figure and in words."""
    parts = []
    for found in files.evaluations:
        about = evaluated.subtitle(found)
        parts.append(f"## Measured on {words.inline(found.name)}" + (f": {words.inline(about)}" if about else ""))
        for family in evaluated.families(found):
            rows, tables = evaluated.figures(found, family), evaluated.tables(family)
            parts += [f"### {words.inline(evaluated.title(family))}"] if rows or tables or family.notes else []
            parts += [words.inline(note) for note in family.notes]
            parts += [table(("figure", "measured"), [row[:2] for row in rows])] if rows else []
            parts += [table(one.columns, one.rows) for one in tables if not one.drawn]
    return parts


def _compared(runs: Sequence[RunFiles]) -> list[str]:
    names = [files.name for files in runs]
    parts = [
        "## Side by side",
        table(("", *names), [(label, *values) for label, values in side_by_side.compared(runs)]),
    ]
    for one in side_by_side.shared(runs):
        rows = [(name, *values) for name, values in side_by_side.figures(one)]
        title = f"## Measured on {words.inline(one.name)}, the same rows"
        parts += [title, table(("figure", *(name for _, name, _ in one.found)), rows)]
    if paired := side_by_side.paired(runs):
        parts += ["## Row by row", table(("whose", "figure", "difference"), paired)]
    differ = [(key, *values) for key, values in side_by_side.differences(runs)]
    return [*parts, "## What the recipes do differently", table(("key", *names), differ)] if differ else parts


def _aspects(runs: Sequence[RunFiles]) -> list[str]:
    groups, title, _ = side_by_side.aspect_groups(runs)
    names = dict.fromkeys(aspect.name for _, found in groups for aspect in found)
    tables = [{aspect.name: aspect.after for aspect in found} for _, found in groups]
    rows = [(name, *(words.interval("margin", table.get(name, {})) for table in tables)) for name in names]
    columns = ("aspect", *(label for label, _ in groups))
    return ["## Margins by aspect", f"{words.inline(title)}.", table(columns, rows)] if rows else []


def _samples(runs: Sequence[RunFiles]) -> list[str]:
    found = side_by_side.samples(runs)
    parts = ["## Samples"] if found else []
    for sample in found[:MOST]:
        for who, said in (*sample.turns, *sample.answers):
            beginning, more = words.cut(said, LONGEST)
            parts += [
                f"{words.inline(who)}:",
                words.fenced(beginning + (f" … ({more:,} more characters)" if more else "")),
            ]
    return parts


def _warnings(files: RunFiles, several: bool) -> str:
    lines = [
        f"- {_step(warning)}{words.inline(warning['seen'] + ' ' + warning['instead'])}" for warning in files.warnings
    ]
    title = f"## Warnings{f' of {words.inline(files.name)}' if several else ''}"
    return "\n".join([title, "", *lines]) if lines else ""


def _step(warning: read.Line) -> str:
    return f"Step {words.inline(warning['step'])}: " if "step" in warning else ""


def _origin(files: RunFiles, level: str) -> list[str]:
    found = [f"{level} Cost", table(("", ""), facts.cost(files).items())] if files.steps else []
    found += [f"{level} Recipe", table(("", ""), facts.choices(files).items())]
    if files.provenance:
        found += [f"{level} Provenance", table(("", ""), facts.provenance(files).items())]
    return [*found, f"{level} To repeat it", words.fenced("\n".join(facts.repeat(files)))]


def _coded(line: str) -> str:
    """A sentence of ours with its code as code; spaces beside code stay."""
    spaced = (
        ("`", words.harmless(part)) if code else ("", words.inline(f"·{part}·")) for code, part in words.pieces(line)
    )
    return "".join(f"{mark}{part}{mark}" if mark else part[1:-1] for mark, part in spaced)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns stand in line, numbers to the right."""
    cells = [[words.inline(cell) for cell in row] for row in (columns, *rows)]
    wide = [max(3, *(len(row[i]) for row in cells)) for i in range(len(columns))]
    right = [bool(i) and len(columns) > 2 for i in range(len(columns))]
    lines = [
        "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, wide, right, strict=True)) + " |"
        for row in cells
    ]
    rule = "| " + " | ".join("-" * (w - 1) + ":" if r else "-" * w for w, r in zip(wide, right, strict=True)) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])
