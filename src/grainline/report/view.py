"""Everything that the template of a page is filled with: words and drawings, nothing computed there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grainline.report import (
    charts,
    differences,
    drawings,
    evaluated,
    evidence,
    facts,
    headline,
    pairs,
    read,
    series,
    side_by_side,
    words,
)
from grainline.report.measured import Evaluation, Family
from grainline.report.read import RunFiles

LONGEST = 6_000
"""Characters of an answer or a prompt that are shown."""
RECIPE = 50_000
"""Characters of a recipe that are shown."""
MOST = 12
"""Samples that are shown."""


def view(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """Everything the template fills in."""
    several = len(runs) > 1
    aspects = _aspects(runs)
    samples, more = _samples(runs)
    shown = {
        "title": " · ".join(files.name for files in runs),
        "status": _status(runs),
        "several": several,
        "names": [files.name for files in runs],
        "headline": headline.several(runs) if several else headline.one(runs[0]),
        "reasons": [] if several else _reasons(runs[0]),
        "warned": [(files.name, files.warnings) for files in runs if files.warnings],
        "compared": [(label, *row) for label, row in side_by_side.compared(runs)] if several else [],
        "differ": side_by_side.differences(runs) if several else [],
        "changes": [] if several else _changes(runs[0]),
        "charts": [_chart(chart) for chart in (series.overlaid(runs) if several else series.single(runs[0]))],
        "aspects": aspects,
        "paired": side_by_side.paired(runs) if several else [],
        "shared": [_shared(i, one) for i, one in enumerate(side_by_side.shared(runs), start=1)] if several else [],
        "measured": [] if several else [_measured(i, one) for i, one in enumerate(runs[0].evaluations, start=1)],
        "heat": pairs.heat_of(runs),
        "samples": samples,
        "more_samples": more,
        "marked": any(answer["tag"] and len(answer["parts"]) > 1 for one in samples for answer in one["answers"]),
        "temperature": _temperature(runs[0]),
        "cost": facts.cost(runs[0]),
        "recipes": [_recipe(files) for files in runs],
        "origins": [
            {"name": files.name, "repeat": "\n".join(facts.repeat(files)), "facts": facts.provenance(files)}
            for files in runs
        ],
    }
    return shown | {"sections": _sections(shown)}


def _reasons(files: RunFiles) -> list[tuple[str, str, list[str]]]:
    """Kind, title and texts of what speaks for the adapter, against it, and of what is not known."""
    found = evidence.reasons(files)
    kinds = [
        (kind, title, [words.sentence(one.text) for one in found if one.kind == kind])
        for kind, title in evidence.TITLES.items()
    ]
    return [(kind, title, texts or ["Nothing that was measured."]) for kind, title, texts in kinds]


def _sections(shown: dict[str, Any]) -> list[tuple[str, str]]:
    changed = "Side by side" if shown["compared"] else "Before and after" if shown["changes"] else ""
    named = [("warnings", "Warnings" if shown["warned"] else ""), ("change", changed), ("curves", "Learning curves")]
    named += [("aspects", "Aspects" if shown["aspects"] else "")]
    named += [(one["id"], f"Measured on {one['name']}") for one in (*shown["measured"], *shown["shared"])]
    named += [
        ("pairs", "Pairs" if shown["heat"] else ""),
        ("samples", "Samples"),
        ("cost", "" if shown["several"] else "Cost"),
    ]
    return [(key, name) for key, name in [*named, ("recipe", "Recipe"), ("provenance", "Provenance")] if name]


def _status(runs: Sequence[RunFiles]) -> str:
    if len(runs) > 1:
        unfinished = [files.name for files in runs if files.results is None]
        return f"{len(runs)} runs" + (f", not finished: {', '.join(unfinished)}" if unfinished else "")
    (files,) = runs
    begun = read.dig(files.provenance, "time")
    when = f", begun {str(begun).replace('T', ' ').removesuffix('Z')} UTC" if begun else ""
    return ("not finished" if files.results is None else f"the adapter of step {files.results['step']}") + when


def _changes(files: RunFiles) -> list[dict[str, Any]]:
    old, new = facts.before(files), facts.after(files)
    shown = []
    for name in facts.sets(files):
        there = new.get(name, {}) or old.get(name, {})
        count = f", {words.whole(there['rows'])} rows" if "rows" in there else ""
        rows = [row[1:] if name in old else (row.label, row.after) for row in facts.changes(files, name)]
        columns = ["metric", "before", "after", "change"] if name in old else ["metric", "measured"]
        shown.append({"title": f"Held out: {name}{count}", "columns": columns, "rows": rows})
    return [one for one in shown if one["rows"]]


def _chart(chart: series.Chart) -> dict[str, Any]:
    from markupsafe import Markup

    columns, rows = series.table(chart)
    level = f"grey line: {chart.level} {words.number(chart.line, 1)}" if chart.level and chart.line is not None else ""
    return {
        "title": chart.title,
        "note": "; ".join(filter(None, (chart.note, level))),
        "key": [(c.label, c.style, chart.kind != "points" or not c.markers, c.markers) for c in chart.curves],
        "svg": Markup(charts.draw(chart)),
        "columns": columns,
        "rows": rows,
    }


def _aspects(runs: Sequence[RunFiles]) -> dict[str, Any] | None:
    from markupsafe import Markup

    groups, title, about = side_by_side.aspect_groups(runs)
    names = list(dict.fromkeys(aspect.name for _, found in groups for aspect in found))
    if not names:
        return None
    tables = [{aspect.name: aspect.after for aspect in found} for _, found in groups]
    return {
        "title": title,
        "note": "",
        "about": about,
        "key": [(label, i, False, True) for i, (label, _) in enumerate(groups)],
        "svg": Markup(charts.intervals(groups)),
        "columns": ["aspect", *(label for label, _ in groups)],
        "rows": [[name, *(words.interval("margin", table.get(name, {})) for table in tables)] for name in names],
    }


def _measured(number: int, found: Evaluation) -> dict[str, Any]:
    return {
        "id": f"measured-{number}",
        "name": found.name,
        "subtitle": evaluated.subtitle(found),
        "families": [
            {
                "title": evaluated.title(family),
                "notes": family.notes,
                "figures": evaluated.figures(found, family),
                "bounded": [row for row in evaluated.figures(found, family) if "[" in row[1]],
                "charts": [*map(_chart, drawings.of(family.name, found)), *_by_aspect(family, found)],
                "tables": evaluated.tables(family),
            }
            for family in evaluated.families(found)
        ],
    }


def _shared(number: int, one: side_by_side.Shared) -> dict[str, Any]:
    rows = [(name, *values) for name, values in side_by_side.figures(one)]
    return {
        "id": f"shared-{number}",
        "name": one.name,
        "columns": ["figure", *(name for _, name, _ in one.found)],
        "rows": rows,
        "bounded": [row for row in rows if any("[" in value for value in row[1:])],
        "missing": one.missing,
        "charts": [_chart(chart) for chart in drawings.overlaid(one.found)],
    }


def _by_aspect(family: Family, found: Evaluation) -> list[dict[str, Any]]:
    from markupsafe import Markup

    aspects = evaluated.aspects(found) if family.name == "preference" else []
    if not aspects:
        return []
    note = "over the pairs whose answers differ in it; lines: 95 % intervals"
    svg = Markup(charts.intervals([("measured", aspects)]))
    return [{"title": "Margin by aspect", "note": note, "key": [], "svg": svg, "columns": [], "rows": []}]


def _samples(runs: Sequence[RunFiles]) -> tuple[list[dict[str, Any]], int]:
    """Prompts with the answers of all voices, and how many prompts are left out."""
    found = side_by_side.samples(runs)
    shown = [
        {"turns": [_said(who, text) for who, text in sample.turns], "answers": _answers(sample.answers)}
        for sample in found[:MOST]
    ]
    return shown, max(0, len(found) - MOST)


def _answers(answers: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Each answer; of two, the words that only one of them has are marked."""
    shown = [_said(who, text) for who, text in answers]
    if len(shown) != 2 or answers[0][0] != "reference":
        return shown
    *parts, share = differences.marked(shown[0]["text"], shown[1]["text"])
    remark = "the same" if share == 1 else "few words in common, none is marked" if share < differences.LEAST else ""
    return [
        answer | {"parts": part, "tag": tag, "remark": remark if tag == "ins" else ""}
        for answer, part, tag in zip(shown, parts, ("del", "ins"), strict=True)
    ]


def _temperature(files: RunFiles) -> Any:
    """At which the shown answers were drawn: a number, or from where to where."""
    drawn = next((found for found in files.evaluations if found.samples), None)
    if drawn is None:
        return read.dig(files.recipe, "evaluation", "temperature")
    own = [line["temperature"] for line in drawn.samples if isinstance(line.get("temperature"), (int, float))]
    if own:
        return " to ".join(dict.fromkeys(words.number(end, 1) for end in (min(own), max(own))))
    return read.dig(drawn.facts, "families", "generation", "options", "temperature")


def _said(who: str, text: str) -> dict[str, Any]:
    beginning, more = words.cut(text, LONGEST)
    return {"who": who, "text": beginning, "more": more, "parts": [], "tag": "", "remark": ""}


def _recipe(files: RunFiles) -> dict[str, Any]:
    text, more = words.cut(files.recipe_text, RECIPE)
    return {"name": files.name, "choices": facts.choices(files), "text": text, "more": more}
