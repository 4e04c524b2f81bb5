"""What a run's files say, in the order in which people ask: what changed, by aspect, at what cost, from what."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from grainline.report import words
from grainline.report.read import Line, RunFiles, dig

WINDOW = 10
"""Training steps that are averaged where single ones would say little."""

METRICS = {
    "rewards/accuracies": "Accuracy",
    "rewards/margins": "Margin of the reward",
    "likelihood/accuracies": "Accuracy by likelihood alone",
    "logps/chosen_per_token": "Chosen answers, nats a token",
    "logps/chosen": "Chosen answers, nats",
    "logps/rejected": "Rejected answers, nats",
    "rewards/chosen": "Reward of chosen answers",
    "rewards/rejected": "Reward of rejected answers",
    "logps/answer_per_token": "Answers, nats a token",
    "logps/answer": "Answers, nats",
}
"""Held-out metrics in the order of tables; docs/report.md says what they mean."""

_ASPECT = re.compile(r"rewards/(.+)/margins")
_ANY_ASPECT = re.compile(r"rewards/.+/(margins|accuracies)")


class Row(NamedTuple):
    """One metric before and after."""

    metric: str  # "rewards/accuracies"
    label: str
    before: str
    after: str
    change: str


class Aspect(NamedTuple):
    """The margin in one aspect: what pairs that differ in it gained."""

    name: str
    before: Line  # "margin", and "margin_low", "margin_high" where it was held out
    after: Line


# --------------------------------------------------------------------------------------------------- before and after


def by_set(line: Line) -> dict[str, dict[str, float]]:
    """``eval_SET_METRIC`` -> set -> metric. Sets may be called anything, so their ``rows`` tell their names."""
    names = {match[1] for key in line if (match := re.fullmatch(r"eval_(.+)_rows", key, re.DOTALL))}
    longest = sorted(names, key=len, reverse=True)
    found: dict[str, dict[str, float]] = {}
    for key, value in line.items():
        for name in longest:
            if key.startswith(f"eval_{name}_"):
                found.setdefault(name, {})[key.removeprefix(f"eval_{name}_")] = value
                break
    return found


def before(files: RunFiles) -> dict[str, dict[str, float]]:
    """Held-out metrics before the first step, by set."""
    return next((by_set(line) for line in files.looks if line["step"] == 0), {})


def after(files: RunFiles) -> dict[str, dict[str, float]]:
    """Held-out metrics of the adapter, or as of the last evaluation while there is none."""
    last = files.results if files.results is not None else next(iter(reversed(files.looks)), {"step": 0})
    return by_set(last) if last["step"] > 0 else {}


def sets(files: RunFiles) -> list[str]:
    """Names of the held-out sets, in the order of the files."""
    return list(dict.fromkeys([*after(files), *before(files)]))


def held_out(files: RunFiles) -> tuple[str, dict[str, float], dict[str, float]]:
    """What a verdict rests on: a set's name, its metrics before and after. The run's own first set; or else what was
    measured later, of which nothing is known before training."""
    if names := sets(files):
        return names[0], before(files).get(names[0], {}), after(files).get(names[0], {})
    for found in files.evaluations:
        if {"rewards/accuracies", "likelihood/accuracies"} & found.metrics.keys():
            return found.name, {}, dict(found.metrics)
    return "", {}, {}


def changes(files: RunFiles, name: str) -> list[Row]:
    """The metrics of a held-out set before and after, those of single aspects aside."""
    old, new = before(files).get(name, {}), after(files).get(name, {})
    return [row(metric, old, new) for metric in ordered([*old, *new])]


def row(metric: str, old: Line, new: Line) -> Row:
    """One metric before and after, as text."""
    there = metric in old and metric in new
    change = words.signed(new[metric] - old[metric]) if there else ""
    return Row(metric, METRICS.get(metric, metric), words.interval(metric, old), words.interval(metric, new), change)


def measured(line: Line) -> list[str]:
    """The metrics of one evaluation that stand for themselves: no bounds, no aspects, no counts."""
    return ordered(list(line))


def ordered(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that stand for themselves, as tables order them."""
    own = [name for name in standing(names) if not (_ANY_ASPECT.fullmatch(name) or name == "rows")]
    return sorted(own, key=lambda n: list(METRICS).index(n) if n in METRICS else len(METRICS))


def standing(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that bound no other."""
    named = dict.fromkeys(names)
    return [name for name in named if not _bound(name, named)]


def _bound(name: str, names: Iterable[str]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in names for end in ("_low", "_high", "_p"))


# ----------------------------------------------------------------------------------------------------------- aspects


def aspects(files: RunFiles, name: str) -> list[Aspect]:
    """Margins by aspect on the held-out set ``name``; without one, in the first and the last steps of training."""
    old, new = before(files).get(name, {}), after(files).get(name, {})
    if not new:
        return _trained(files)
    names = [match[1] for key in new if (match := _ASPECT.fullmatch(key))]
    return [Aspect(aspect, _margin(old, aspect), _margin(new, aspect)) for aspect in names]


def _margin(line: Line, aspect: str) -> dict[str, float]:
    key = f"rewards/{aspect}/margins"
    return {f"margin{end}": line[f"{key}{end}"] for end in ("", "_low", "_high") if f"{key}{end}" in line}


def _trained(files: RunFiles) -> list[Aspect]:
    names = dict.fromkeys(match[1] for line in files.steps for key in line if (match := _ASPECT.fullmatch(key)))
    found = []
    for name in names:
        values = [line[f"rewards/{name}/margins"] for line in files.steps if f"rewards/{name}/margins" in line]
        found.append(Aspect(name, {"margin": fmean(values[:WINDOW])}, {"margin": fmean(values[-WINDOW:])}))
    return found


# -------------------------------------------------------------------------------------------------------------- cost


def seconds(files: RunFiles) -> float:
    """Seconds of training; a resumed run's clock starts again, so each stretch counts."""
    clock = [float(line["seconds"]) for line in files.steps if "seconds" in line]
    return sum(now for now, then in zip(clock, [*clock[1:], 0.0], strict=True) if then < now)


def cost(files: RunFiles) -> dict[str, str]:
    """Time, speed and size, in words."""
    if not files.steps:
        return {}
    took, last = seconds(files), files.steps[-1]
    found = {"Training steps": words.whole(last["step"])}
    if took > 0:
        found |= {"Time of training": words.duration(took), "Seconds a step": words.number(took / len(files.steps), 2)}
        if "num_tokens" in last:
            found["Tokens a second"] = words.whole(last["num_tokens"] / took)
    for label, key in (("Tokens", "num_tokens"), ("Rows", "num_rows")):
        if key in last:
            found[label] = words.whole(last[key])
    memory = dig(files.results, "peak_memory")
    if memory and math.isfinite(memory):
        where = "of the GPU" if str(dig(files.provenance, "device")).startswith("cuda") else "by the process"
        found[f"Most memory held, {where}"] = words.size(round(memory))
    trainable = dig(files.provenance, "run", "trainable")
    found |= {"Trainable parameters": words.number(trainable)} if trainable is not None else {}
    return found | ({"Size of the weights": words.size(files.weights)} if files.weights else {})


# -------------------------------------------------------------------------------------------------------- provenance


def choices(files: RunFiles) -> dict[str, str]:
    """The choices that name a run."""
    recipe = files.recipe
    data = recipe.get("data")
    parts = data if isinstance(data, Sequence) and not isinstance(data, str) else [data]
    found = {
        "Model": dig(recipe, "model", "name") or recipe.get("model"),
        "Data": ", ".join(str(dig(part, "path") or part) for part in parts),
        **{key.capitalize(): recipe.get(key) for key in ("supervision", "objective", "adapter", "optimizer")},
        "Batch size": recipe.get("batch_size"),
        "Steps": recipe.get("steps"),
        "Seed": recipe.get("seed"),
    }
    return {key: str(value) for key, value in found.items() if value is not None}


def provenance(files: RunFiles) -> dict[str, str]:
    """Versions, machine, model and data, one line each."""
    facts = files.provenance
    machine, model = dig(facts, "machine"), dig(facts, "model")
    found: dict[str, Any] = {
        "Begun": dig(facts, "time"),
        "Processor": dig(machine, "processor"),
        "Cores, threads": f"{dig(machine, 'cores')}, {dig(machine, 'threads')}" if machine else None,
        "GPU": dig(machine, "cuda"),
        "System": dig(machine, "system"),
        "Device": dig(facts, "device"),
        "Processes": dig(facts, "run", "processes"),
        "Layout": dig(facts, "run", "layout"),
        "Reference": dig(facts, "run", "reference"),
        "Seed": dig(facts, "seed"),
        "Model": dig(model, "source"),
        "Model's SHA-256": dig(model, "sha256"),
        "SHA-256 of the adapter it goes on from": dig(model, "adapter_sha256"),
        "Model's dtype": dig(model, "dtype"),
        **_digests(facts),
        **{
            f"Measured on {found.name}": _rows(data)
            for found in files.evaluations
            if isinstance(data := found.facts.get("data"), Mapping)
        },
        "Python": dig(facts, "python"),
    }
    versions = dig(facts, "versions")
    found |= {str(k): v for k, v in versions.items()} if isinstance(versions, Mapping) else {}
    return {key: str(value) for key, value in found.items() if value is not None}


def _digests(facts: Mapping[str, Any]) -> dict[str, str]:
    train = dig(facts, "data", "train")
    parts = [(f"Data, {dig(part, 'path')}", part) for part in train] if isinstance(train, Sequence) else []
    held_out = dig(facts, "data", "evaluation")
    parts += [(f"Held out, {name}", part) for name, part in held_out.items()] if isinstance(held_out, Mapping) else []
    return {label: _rows(part) for label, part in parts if isinstance(part, Mapping)}


def _rows(part: Mapping[str, Any]) -> str:
    return f"{words.number(dig(part, 'rows'))} rows, SHA-256 {dig(part, 'digest')}"


def digest(files: RunFiles, name: str) -> str | None:
    """Which held-out rows ``name`` are; None where that is not known. Two runs compare where it is known and equal."""
    if name in sets(files):
        found = dig(files.provenance, "data", "evaluation", name, "digest")
    else:
        found = next((dig(one.facts, "data", "digest") for one in files.evaluations if one.name == name), None)
    return str(found) if found else None


def repeat(files: RunFiles) -> list[str]:
    """The commands that give the run again: compared number by number, or into a new folder."""
    folder = shlex.quote(str(files.folder))
    again = shlex.quote(f"{str(files.folder).rstrip('/')}-again")
    return [f"grainline replay {folder}", f"grainline align {shlex.quote(f'{files.folder}/recipe.yaml')} out={again}"]
