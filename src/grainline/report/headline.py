"""One sentence that a person can act on, and what to do next.

A change counts where the interval after training leaves the value before it; an interval is of one look at few rows,
so the sentence says "not clearly" more often than a test of the same pairs would.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from grainline.report import facts, words
from grainline.report.evidence import GAP, SLIGHT
from grainline.report.read import Line, RunFiles


class Headline(NamedTuple):
    verdict: str  # "better", "worse", "unclear", "not compared" (with before training), "not measured"
    sentence: str
    next: list[str]


def one(files: RunFiles) -> Headline:
    """What became of a run."""
    name, old, new = facts.held_out(files)
    if not new:
        return Headline("not measured", _unmeasured(files), _next(files, "not measured", {}, {}))
    metric = next((m for m in ("rewards/accuracies", "likelihood/accuracies") if m in new), "")
    verdict, accuracy = _accuracy(metric, old, new, name) if metric else ("unclear", "")
    likelihood = _likelihood(old, new)
    if not metric:
        verdict = _by_likelihood(old, new)
    said = "; ".join(part for part in (accuracy, likelihood) if part) or f"Measured on {name}"
    return Headline(verdict, said[:1].upper() + said[1:] + ".", _next(files, verdict, old, new))


def several(runs: Sequence[RunFiles]) -> Headline:
    """Which of several runs is ahead, if one is."""
    looks = [(files, name, new) for files in runs for name, _, new in [facts.held_out(files)] if name]
    metric = next(
        (m for m in ("rewards/accuracies", "likelihood/accuracies") if sum(m in look for *_, look in looks) > 1), ""
    )
    ranked = sorted((x for x in looks if metric in x[2]), key=lambda x: -x[2][metric])
    if len(ranked) < 2:
        return Headline("not measured", f"{len(runs)} runs; fewer than two have a held-out accuracy to compare.", [])
    (best, _, top), (second, _, next_one) = ranked[:2]
    if apart := _apart([facts.digest(files, held_out) for files, held_out, _ in ranked]):
        return Headline("unclear", apart, ["Measure all on one file: `grainline evaluate RUN --data test.jsonl`."])
    if top[metric] == next_one[metric]:
        sentence = f"{best.name} and {second.name} have the same held-out accuracy, {words.interval(metric, top, 2)}"
        return Headline("unclear", f"{sentence}.", ["Compare their margins, or measure on harder held-out rows."])
    if metric == "rewards/accuracies" and (row_by_row := _paired(best, second)):
        difference, low, high = row_by_row
        if difference < 0:  # these rows may be others than those by which the runs were ranked
            best, second, (difference, low, high) = second, best, (-difference, -high, -low)
        said = words.interval("x", {"x": difference, "x_low": low, "x_high": high}, 2)
        sentence = f"On the same rows {best.name} has an accuracy that is {said} above that of {second.name}"
        if low > 0:
            return Headline("better", f"{sentence}.", [])
        return Headline("unclear", f"{sentence}: too close to call.", ["More held-out rows or more seeds would tell."])
    clear = top.get(f"{metric}_low", top[metric]) > next_one.get(f"{metric}_high", next_one[metric])
    sentence = (
        f"{best.name} has the highest held-out accuracy, {words.interval(metric, top, 2)}; "
        f"the next, {second.name}, has {words.interval(metric, next_one, 2)}"
    )
    if clear:
        return Headline("better", f"{sentence}: the intervals do not touch.", [])
    return Headline("unclear", f"{sentence}: too close to call.", ["More held-out rows or more seeds would tell."])


def _apart(rows: Sequence[str | None]) -> str:
    """Why figures on ``rows`` (digests) do not compare; empty where all were measured on the same."""
    if len({digest for digest in rows if digest is not None}) > 1:
        return "The runs were measured on different held-out rows: their figures do not compare."
    if None in rows:
        return "It is not known whether the runs were measured on the same held-out rows: there is no digest of them."
    return ""


def _paired(best: RunFiles, second: RunFiles) -> tuple[float, float, float] | None:
    """By how much ``best`` is ahead on the same rows, with bounds, where one was measured against the other."""
    key = "against/rewards/accuracies"
    for files, rival, sign in ((best, second, 1), (second, best, -1)):
        for found in files.evaluations:
            named = found.against == rival.folder.resolve().name
            if named and {key, f"{key}_low", f"{key}_high"} <= found.metrics.keys():
                low, high = sorted(sign * found.metrics[f"{key}_{end}"] for end in ("low", "high"))
                return sign * found.metrics[key], low, high
    return None


# ----------------------------------------------------------------------------------------------------------- clauses


def _accuracy(metric: str, old: Line, new: Line, name: str) -> tuple[str, str]:
    now = new[metric]
    low, high = new.get(f"{metric}_low", now), new.get(f"{metric}_high", now)
    shown = words.interval(metric, new, 2)
    where = f" on {words.whole(new['rows'])} pairs of {name}" if "rows" in new else f" on {name}"
    what = "held-out accuracy" if metric == "rewards/accuracies" else "held-out accuracy by likelihood"
    if metric not in old:  # without a reference a reward is no tie before training, so chance would prove nothing
        side = "above" if low > 0.5 else "below" if high < 0.5 else "not clearly off"
        return "not compared", f"{what} is {shown}{where}, {side} chance; before training it was not measured"
    start = old[metric]
    if low > start:
        return "better", f"{what} rose from {words.number(start, 2)} to {shown}{where}"
    if high < start:
        return "worse", f"{what} fell from {words.number(start, 2)} to {shown}{where}"
    return "unclear", f"{what} has not clearly changed: {words.number(start, 2)} before, {shown} after{where}"


def _likelihood(old: Line, new: Line) -> str:
    for metric, who in (("logps/chosen_per_token", "chosen answers"), ("logps/answer_per_token", "answers")):
        if metric in old and metric in new:
            change = new[metric] - old[metric]
            if abs(change) < SLIGHT:
                return f"the likelihood of {who} has hardly changed"
            way = "rose" if change > 0 else "fell"
            return f"the likelihood of {who} {way} by {words.number(abs(change), 2)} nats a token"
    return ""


def _by_likelihood(old: Line, new: Line) -> str:
    metric = "logps/answer_per_token"
    change = new.get(metric, 0.0) - old.get(metric, new.get(metric, 0.0))
    return "unclear" if abs(change) < SLIGHT else "better" if change > 0 else "worse"


def _unmeasured(files: RunFiles) -> str:
    losses = [line["loss"] for line in files.steps]
    if not losses:
        return "The run has not come to its first step."
    if len(losses) < 2 * facts.WINDOW:
        first, last, when = losses[0], losses[-1], ""
    else:
        first, last = fmean(losses[: facts.WINDOW]), fmean(losses[-facts.WINDOW :])
        when = f" (means of {facts.WINDOW} steps)"
    way = "fell" if last < first else "rose" if last > first else "stayed"
    steps = f"{words.number(len(losses))} step{'s' if len(losses) > 1 else ''}"
    sentence = f"In {steps} the loss {way} from {words.number(first)} to {words.number(last)}{when}"
    return f"{sentence}; nothing held out was measured, so whether this holds for other prompts is unknown."


def _next(files: RunFiles, verdict: str, old: Line, new: Line) -> list[str]:
    folder = shlex.quote(str(files.folder))
    found = []
    if files.results is None:
        done = f"step {files.steps[-1]['step']}" if files.steps else "before the first step"
        found.append(
            f"The run is not finished ({done} of {files.recipe.get('steps')}): `grainline align {folder} --resume`"
        )
    elif verdict == "not measured":
        found.append(
            f"Measure it: `grainline evaluate {folder} --data test.jsonl`, or set `evaluation.data` in the recipe."
        )
    if files.warnings:
        found.append(f"Read the warnings first: there are {len(files.warnings)}.")
    if verdict == "unclear":
        found.append(
            "No clear gain: try more pairs, more steps or a larger `optimizer.lr`; more held-out rows narrow it."
        )
    if verdict == "worse":
        found.append(
            "The adapter prefers what people did not: look for swapped answers, or try a smaller `optimizer.lr`."
        )
    metric = "logps/chosen_per_token"
    if metric in old and metric in new and new[metric] < old[metric] - SLIGHT:
        found.append("Chosen answers became less likely: `objective=dpo+0.2*sft` or a larger beta holds them up.")
    late = [line["rewards/accuracies"] for line in files.steps[-facts.WINDOW :] if "rewards/accuracies" in line]
    high = new.get("rewards/accuracies_high")
    if late and high is not None and fmean(late) > high + GAP:
        found.append(
            f"In training {words.number(fmean(late), 2)} of the pairs are won, far above the held-out interval: "
            "more data will help more than more steps."
        )
    if verdict == "better" and files.results is not None:
        found.append(f"Talk to it: `grainline chat {folder}`; ship it: `grainline export {folder} --to adapter`")
    return found
