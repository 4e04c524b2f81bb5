"""Several runs beside each other: figures, aspects, answers, and what their recipes do differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grainline.report import facts, words
from grainline.report.facts import Aspect
from grainline.report.jsonl import Line
from grainline.report.measured import Evaluation
from grainline.report.read import RunFiles, dig


class Sample(NamedTuple):
    """A held-out prompt and what was answered."""

    turns: list[tuple[str, str]]  # who, text
    answers: list[tuple[str, str]]  # whose, text


def compared(several: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """What runs came to, a row for each figure, a column for each run; each on its first held-out set."""
    names = [next(iter(facts.sets(files)), "") for files in several]
    looks = [facts.after(files).get(name, {}) for files, name in zip(several, names, strict=True)]
    starts = [facts.before(files).get(name, {}) for files, name in zip(several, names, strict=True)]
    rows = []
    for metric in facts.ordered(name for look in looks for name in look):
        rows.append((facts.METRICS.get(metric, metric), [words.interval(metric, look) for look in looks]))
        if metric == "logps/chosen_per_token":
            moved = [
                words.signed(look[metric] - start[metric]) if metric in look and metric in start else "–"
                for look, start in zip(looks, starts, strict=True)
            ]
            rows.append(("Change of it since the start", moved))
    if any(names):
        counts = [
            f"{name}, {words.whole(look.get('rows', 0))} rows" if name else "–"
            for name, look in zip(names, looks, strict=True)
        ]
        rows.append(("Held out", counts))
    costs = [facts.cost(files) for files in several]
    labels = dict.fromkeys(label for one in costs for label in one)
    return rows + [(label, [one.get(label, "–") for one in costs]) for label in labels]


class Shared(NamedTuple):
    """An evaluation that several runs have on the same rows."""

    name: str
    found: list[tuple[int, str, Evaluation]]  # which run, its name, and what was measured of it
    missing: list[str]  # runs without it


def shared(several: Sequence[RunFiles]) -> list[Shared]:
    """Evaluations that at least two runs have, on the same rows by their digest: others do not compare."""
    groups: dict[tuple[str, str], list[tuple[int, str, Evaluation]]] = {}
    for i, files in enumerate(several):
        for found in files.evaluations:
            groups.setdefault((found.name, found.of_rows), []).append((i, files.name, found))
    names = [files.name for files in several]
    return [
        Shared(name, found, [other for other in names if other not in {run for _, run, _ in found}])
        for (name, _), found in groups.items()
        if len(found) > 1
    ]


def figures(one: Shared) -> list[tuple[str, list[str]]]:
    """Each figure, a value for each run."""
    names = facts.ordered(
        name for *_, found in one.found for name in found.metrics if name.partition("/")[0] != "against"
    )
    return [(name, [words.interval(name, found.metrics) for *_, found in one.found]) for name in names]


def paired(several: Sequence[RunFiles]) -> list[tuple[str, str, str]]:
    """What was measured of one run against another on the same rows: whose, figure, difference with interval and p."""
    rows = []
    for files in several:
        for found in files.evaluations:
            for name in facts.ordered(found.metrics):
                if found.against and name.startswith("against/") and name != "against/rows":
                    p = found.metrics.get(f"{name}_p")
                    value = words.interval(name, found.metrics) + (f", p = {words.number(p)}" if p is not None else "")
                    label = facts.METRICS.get(name.removeprefix("against/"), name)
                    rows.append((f"{files.name} less {found.against}, {found.name}", label, value))
    return rows


def aspect_groups(several: Sequence[RunFiles]) -> tuple[list[tuple[str, list[Aspect]]], str, str]:
    """Margins by aspect, before and after for one run, after for several; with a title and a note."""
    names = [next(iter(facts.after(files)), "") for files in several]
    found = [facts.aspects(files, name) for files, name in zip(several, names, strict=True)]
    note = "Over the pairs whose answers differ in an aspect: how much more reward the better one has; 0 is none."
    if len(several) > 1:
        return [(f.name, x) for f, x in zip(several, found, strict=True)], "After training", note
    old = [aspect._replace(after=aspect.before) for aspect in found[0]]
    if names[0]:
        return [("before", old), ("after", found[0])], f"Held out: {names[0]}; lines are 95 % intervals", note
    labels = f"first {facts.WINDOW} steps", f"last {facts.WINDOW} steps"
    return [(labels[0], old), (labels[1], found[0])], "In training, where nothing was held out", note


def samples(several: Sequence[RunFiles]) -> list[Sample]:
    """Samples of one run, policy beside reference; of several, all policies beside the reference. Where an evaluation
    has drawn answers, they are more, and take the place of those of the run's end."""
    found: dict[str, Sample] = {}
    for files in several:
        for i, row in enumerate(answered(files)):
            sample = found.setdefault(str((row.get("id", i), row.get("prompt"))), Sample(turns(row.get("prompt")), []))
            if "reference" in row and all(who != "reference" for who, _ in sample.answers):
                sample.answers.insert(0, ("reference", row["reference"]))
            sample.answers.append((("policy" if len(several) == 1 else files.name) + _judged(row), row["policy"]))
    return list(found.values())


def answered(files: RunFiles) -> Sequence[Line]:
    """Prompts with the answers that were drawn, each prompt's first."""
    drawn = next((found.samples for found in files.evaluations if found.samples), ())
    return [row for row in drawn if row.get("draw", 0) == 0] or files.samples


def _judged(row: Line) -> str:
    win = row.get("win")
    is_number = isinstance(win, (int, float)) and not isinstance(win, bool)
    whose = " than the other run's" if "against" in row else ""
    return f" (the judge: better{whose} with {words.number(win, 2)})" if is_number else ""


def turns(prompt: Any) -> list[tuple[str, str]]:
    """A prompt, which data may write in any shape: who speaks, and what."""
    if isinstance(prompt, Sequence) and not isinstance(prompt, str):
        said = [(dig(turn, "role"), dig(turn, "content")) for turn in prompt]
        return [(str(role or "?"), content if isinstance(content, str) else str(content)) for role, content in said]
    return [("prompt", str(prompt))]


def differences(several: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """The keys of the recipes that are not the same, each run's value."""
    flat = [_flat(files.recipe) for files in several]
    keys = sorted({key for one in flat for key in one} - {"out"})
    rows = [(key, [one.get(key, "–") for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        items = list(enumerate(value))
    else:
        return {prefix.rstrip("."): "–" if value is None else str(value)}
    return {k: v for key, inner in items for k, v in _flat(inner, f"{prefix}{key}.").items()}
