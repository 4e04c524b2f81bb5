"""A run, carried out once more from its own folder, and every number of it beside the first.

Rows, tokens and weights are compared with ``provenance.json`` before anything is written: with others the numbers would
differ for a reason that is known already. The schedule is the recipe's also where only the first steps are repeated.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from grainline import adapter_files, claim, provenance, runs
from grainline.errors import RunError
from grainline.progress import say
from grainline.recipe import DataChoice, HeldOutChoice, Recipe
from grainline.report import read

TOLERANCE = 1e-5
"""How far a number may be from the first run's and still be rounding; above 1, a share of the number."""

Verdict = Literal["bitwise equal", "equal within rounding", "different"]
Lines = Mapping[int, Mapping[str, float]]  # step -> metric -> value

_OF_THE_CLOCK = frozenset({"step", "seconds"})
_OF_COURSE = ("time", "model.", "data.", "run.reference_verified_nats")  # compared before, or never the same


class Difference(NamedTuple):
    """Where a metric is farthest from the first run's."""

    metric: str
    largest: float  # absolute
    step: int
    run: float
    replay: float

    @property
    def rounding(self) -> bool:
        return self.largest <= TOLERANCE * max(1.0, abs(self.run))


class Comparison(NamedTuple):
    """Two runs' numbers side by side."""

    numbers: int  # of metrics.jsonl, how many were compared
    steps: int  # training steps that both have
    differences: tuple[Difference, ...]  # metrics that are not the same to the last bit, the farthest first
    absent: tuple[str, ...]  # numbers that both measure and one lacks: "loss at step 3 (replay)"
    alone: tuple[str, ...]  # metrics that only one of the runs measures; they decide nothing
    weights: int = 0  # of the adapter, compared as well

    @property
    def verdict(self) -> Verdict:
        if self.absent or not all(difference.rounding for difference in self.differences):
            return "different"
        return "equal within rounding" if self.differences else "bitwise equal"


class Replay(NamedTuple):
    """What a repetition showed."""

    folder: Path
    compared: Comparison
    elsewhere: dict[str, tuple[Any, Any]]  # versions, machine, processes...: fact -> (run's, replay's)


def replay(folder: Path, out: Path, *, steps: int | None = None, progress: bool = True) -> Replay:
    """Repeat the run in ``folder`` into the new folder ``out``, or only its first ``steps``, and compare.

    Raises:
        RunError: nothing to compare with, ``out`` is taken, or the data or the model are not those of the run.
    """
    run = runs.Run(folder)
    before, lines, recipe = _provenance(folder), by_step(read.metrics(folder)), run.recipe
    last = max((step for step, line in lines.items() if "loss" in line), default=0)
    if not last:
        raise RunError("the run has no step yet.", where=str(folder), instead="Resume it, and replay it then.")
    if steps is not None and not 1 <= steps <= last:
        raise RunError(f"{steps} steps are asked for, the run has 1 to {last}.", where=str(folder))
    recipe = dataclasses.replace(_kept(recipe, folder), out=str(out), trackers=(), shard=False)
    claim.fresh(out, recipe)
    for what, (old, new) in differing(before, provenance.gathered()).items():
        say(f"not as in the run: {what} was {old}, is {new}", quiet=not progress)
    few = steps or last
    stop = [] if few == recipe.steps else [StopAfter(few)]
    again = runs.run(recipe, callbacks=stop, progress=progress, approve=lambda now: check(recipe, before, now))
    repeated = by_step(again.metrics)
    if not again.finished:  # Ctrl-C: what there is can be compared
        few = min(few, max(repeated))
    compared = compare(up_to(lines, few), up_to(repeated, few))
    if run.finished and again.finished:
        compared = _with_adapters(compared, run.adapter, again.adapter, few)
    return Replay(out, compared, differing(before, _provenance(out)))


class StopAfter:
    """A callback that ends a run early while its schedule stays that of all steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = control.should_training_stop or state.global_step >= self.steps


# ------------------------------------------------------------------------------------------------ before the start


def check(recipe: Recipe, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Rows, tokens and weights are those of the run: the facts ``before`` beside those of ``now``.

    Raises:
        RunError: names what is not.
    """
    choices: Sequence[DataChoice | HeldOutChoice] = [*recipe.data, *recipe.evaluation.data.values()]
    sources = [
        [*_fact(facts, "data", "train"), *_fact(facts, "data", "evaluation").values()] for facts in (before, now)
    ]
    for old, new, choice in zip(*sources, choices, strict=True):
        if old["digest"] != new["digest"]:
            rows = "" if old["rows"] == new["rows"] else f" ({old['rows']} rows then, {new['rows']} now)"
            raise _changed(f"data {choice.path}", f"its rows are not those of the run{rows}")
    if _fact(before, "data", "tokens") != now["data"]["tokens"]:
        raise _changed("data", "the same rows give other tokens than in the run: the tokenizer or its template changed")
    if _fact(before, "model", "sha256") != now["model"]["sha256"]:
        raise _changed(f"model {recipe.model.name}", "its weights are not those of the run")
    if before["model"].get("adapter_sha256") != now["model"]["adapter_sha256"]:
        raise _changed(f"adapter {recipe.model.adapter}", "it is not the one that the run went on from")


def _changed(where: str, what: str) -> RunError:
    return RunError(f"{what}.", where=where, instead="Put them back: other numbers would say nothing of the run.")


def _fact(facts: Mapping[str, Any], part: str, name: str) -> Any:
    try:
        return facts[part][name]
    except (KeyError, TypeError):
        raise RunError(
            f"{part}.{name} is not in it.",
            where="provenance.json",
            instead="Replay it with the Grainline that wrote it.",
        ) from None


def _kept(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with rows that were kept in the run's folder found there, should the folder have moved."""

    def found(choice: Any) -> Any:
        kept = folder / "data" / Path(choice.path).name
        gone = not Path(os.path.expanduser(choice.path)).exists()
        return dataclasses.replace(choice, path=str(kept)) if gone and kept.is_file() else choice

    held_out = {name: found(choice) for name, choice in recipe.evaluation.data.items()}
    evaluation = dataclasses.replace(recipe.evaluation, data=held_out)
    return dataclasses.replace(recipe, data=tuple(map(found, recipe.data)), evaluation=evaluation)


def _provenance(folder: Path) -> Mapping[str, Any]:
    if not (folder / "provenance.json").is_file():
        instead = "The run never came to its first step: start it again."
        raise RunError("no provenance.json.", where=str(folder), instead=instead)
    return read.provenance(folder)


# ------------------------------------------------------------------------------------------------------- comparing


def by_step(lines: Sequence[Mapping[str, float]]) -> dict[int, dict[str, float]]:
    """Lines of metrics.jsonl by step: a step's training and its evaluation, without what a clock says."""
    found: dict[int, dict[str, float]] = {}
    for line in lines:
        kept = {name: value for name, value in line.items() if name not in _OF_THE_CLOCK}
        found.setdefault(int(line["step"]), {}).update(kept)
    return found


def up_to(lines: Lines, last: int) -> dict[int, Mapping[str, float]]:
    return {step: line for step, line in lines.items() if step <= last}


def compare(run: Lines, replay: Lines) -> Comparison:
    """Every number of two runs, side by side."""
    ours, theirs = ({name for line in lines.values() for name in line} for lines in (run, replay))
    farthest: dict[str, Difference] = {}
    absent: list[str] = []
    numbers = 0
    for step in sorted(run.keys() | replay.keys()):
        old, new = run.get(step, {}), replay.get(step, {})
        for name in sorted((old.keys() | new.keys()) & ours & theirs):
            if name not in old or name not in new:
                absent.append(f"{name} at step {step} ({'replay' if name in old else 'run'})")
                continue
            numbers += 1
            apart = distance(old[name], new[name])
            if apart > (farthest[name].largest if name in farthest else 0.0):
                farthest[name] = Difference(name, apart, step, old[name], new[name])
    differences = tuple(sorted(farthest.values(), key=lambda found: -found.largest))
    steps = sum("loss" in line and "loss" in replay.get(step, {}) for step, line in run.items())
    return Comparison(numbers, steps, differences, tuple(absent), tuple(sorted(ours ^ theirs)))


def distance(a: float, b: float) -> float:
    """How far two numbers are apart; one that is not a number is as far as can be from any that is.

    >>> distance(1.0, 1.5), distance(math.nan, math.nan), distance(math.nan, 1.0)
    (0.5, 0.0, inf)
    """
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf


def _with_adapters(compared: Comparison, run: Path, replay: Path, step: int) -> Comparison:
    """The comparison with the weights of both adapters in it; a whole model (adapter=none) is left to its metrics."""
    files = [folder / adapter_files.WEIGHTS for folder in (run, replay)]
    if not all(file.is_file() for file in files):
        return compared
    weights, farthest = 0, Difference("adapter weights", 0.0, step, 0.0, 0.0)
    for old, new in _tensors(*files):
        weights += old.numel()
        gap = (old.double() - new.double()).abs()
        if float(gap.max()) > farthest.largest:
            at = int(gap.argmax())
            farthest = Difference(
                "adapter weights", float(gap.max()), step, *(float(t.flatten()[at]) for t in (old, new))
            )
    more = [farthest] if farthest.largest else []
    differences = tuple(sorted([*compared.differences, *more], key=lambda found: -found.largest))
    return compared._replace(weights=weights, differences=differences)


def _tensors(run: Path, replay: Path) -> Iterator[tuple[Any, Any]]:
    ours, theirs = (adapter_files.read_tensors(file.parent) for file in (run, replay))
    if {name: t.shape for name, t in ours.items()} != {name: t.shape for name, t in theirs.items()}:
        raise RunError("the adapters have other tensors.", where=str(replay), instead="Compare recipe.yaml and PEFT.")
    return ((ours[name], theirs[name]) for name in ours)


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Facts that both know and that are not the same: versions, machine, processes, layout."""
    old, new = provenance.flat(before), provenance.flat(after)
    names = [name for name in old if name in new and not name.startswith(_OF_COURSE)]
    return {name: (old[name], new[name]) for name in names if old[name] != new[name]}
