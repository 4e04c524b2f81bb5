"""What speaks for a run's adapter, what against it, and what nobody has looked at: the reasons behind the headline.

A change counts for or against only where its interval leaves zero (or chance); else it stands under "not known", with
the interval that says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Literal, NamedTuple

from grainline.report import facts, words
from grainline.report.measured import Evaluation
from grainline.report.read import Line, RunFiles

SLIGHT = 0.005
"""Nats a token that are called no change."""
GAP = 0.1
"""By how much training accuracy may stand above the held-out interval."""
WIDE = 0.2
"""An interval of an accuracy that is wider than this says little."""

FORGOTTEN = 0.05
"""Of the perplexity of neutral text, the share by which it may rise and still be called kept."""

Kind = Literal["for", "against", "open"]
TITLES = {"for": "Speaks for it", "against": "Speaks against it", "open": "Not known"}


class Reason(NamedTuple):
    kind: Kind
    text: str


def reasons(files: RunFiles) -> list[Reason]:
    """All reasons, those of a kind in the order of their weight."""
    _, old, new = facts.held_out(files)
    if any("against_reference/likelihood" in evaluation.metrics for evaluation in files.evaluations):
        # Row by row it says more.
        new = {key: value for key, value in new.items() if not key.startswith("likelihood/")}
    if any("displacement/chosen_per_token_low" in evaluation.metrics for evaluation in files.evaluations):
        new = {key: value for key, value in new.items() if key != "logps/chosen_per_token"}
    found = [*_accuracy(old, new), *_likelihood(old, new), *_fit(files, new)]
    for evaluation in files.evaluations:
        found += _measured(evaluation)
    found += [Reason("against", f"{_count(len(files.warnings), 'warning')} while it trained")] if files.warnings else []
    if not new:
        found.append(Reason("open", "nothing held out was measured"))
    if not any("forgetting/change" in evaluation.metrics for evaluation in files.evaluations):
        found.append(
            Reason("open", "what it has forgotten: nobody measured it (grainline evaluate --measure forgetting)")
        )
    if files.evaluations and not any("generation/win_rate" in one.metrics for one in files.evaluations):
        found.append(Reason("open", "whether its answers are better: nobody judged them; read some below"))
    found.append(
        Reason(
            "open", f"one run of one seed ({files.recipe.get('seed', 0)}): another may differ by more than its interval"
        )
    )
    return found


def _accuracy(old: Line, new: Line) -> Iterator[Reason]:
    for metric, name in (
        ("rewards/accuracies", "held-out accuracy"),
        ("likelihood/accuracies", "accuracy by likelihood alone"),
    ):
        if metric not in new:
            continue
        low, high = (new.get(f"{metric}_{end}", new[metric]) for end in ("low", "high"))
        if metric in old:
            kind: Kind = "for" if low > old[metric] else "against" if high < old[metric] else "open"
            yield Reason(kind, f"{name} {words.interval(metric, new, 2)}, {words.number(old[metric], 2)} before")
        else:
            yield Reason("open", f"{name} {words.interval(metric, new, 2)}: before training nobody looked")
        if metric == "rewards/accuracies" and low == high == 1.0 and new.get("rows"):
            # The bootstrap cannot see what no row shows; the rule of three bounds it (Hanley and Lippman-Hand 1983).
            rest = words.number(min(1.0, 3 / new["rows"]), 2)
            yield Reason("open", f"all pairs were won, so the interval is a point; up to {rest} of others may be lost")
        if metric == "rewards/accuracies" and high - low > WIDE:
            yield Reason(
                "open", f"the interval is {words.number(high - low, 2)} wide: more held-out pairs would narrow it"
            )


def _likelihood(old: Line, new: Line) -> Iterator[Reason]:
    metric = "logps/chosen_per_token"
    if metric in old and metric in new and abs(change := new[metric] - old[metric]) >= SLIGHT:
        way = "likelier" if change > 0 else "less likely: margins come from pushing rejected answers down"
        said = f"chosen answers became {words.number(abs(change), 2)} nats a token {way}"
        yield Reason("open", f"{said}; without an interval (grainline evaluate gives one)")


def _measured(found: Evaluation) -> Iterator[Reason]:
    """What an evaluation adds, each figure against the level that would be no change."""
    where = f" on {found.name}"
    other = f" than {found.against}" if found.against else ""
    for metric, level, said in (
        ("length/accuracy_controlled", 0.5, f"accuracy at equal length{where}"),
        (
            "against_reference/likelihood",
            0.0,
            f"accuracy by likelihood alone{where}, so much above the reference's on the same pairs",
        ),
        ("displacement/chosen_per_token", 0.0, f"change of the chosen answers{where}, nats a token"),
        ("generation/win_rate", 0.5, f"share of its answers that the judge prefers{where}"),
        ("against/rewards/accuracies", 0.0, f"accuracy, so much more{other}, on the same pairs of {found.name}"),
    ):
        if f"{metric}_low" in found.metrics and f"{metric}_high" in found.metrics:
            low, high = found.metrics[f"{metric}_low"], found.metrics[f"{metric}_high"]
            kind: Kind = "for" if low > level else "against" if high < level else "open"
            yield Reason(kind, f"{said}: {words.interval(metric, found.metrics, 2)}")
    if "forgetting/change" in found.metrics:
        yield _forgotten(found)


def _forgotten(found: Evaluation) -> Reason:
    metric = "forgetting/change"  # nats a token: the logarithm of what the perplexity was multiplied by
    rise = {key: math.expm1(min(value, 99)) for key, value in found.metrics.items() if key.startswith(metric)}
    low, high = (rise.get(f"{metric}_{end}", rise[metric]) for end in ("low", "high"))
    kind: Kind = "for" if high <= FORGOTTEN else "against" if low > 0 else "open"
    percent = {key: 100 * value for key, value in rise.items()}
    return Reason(kind, f"perplexity of neutral text changed by {words.interval(metric, percent, 1)} % (more is worse)")


def _fit(files: RunFiles, new: Line) -> Iterator[Reason]:
    late = [line["rewards/accuracies"] for line in files.steps[-facts.WINDOW :] if "rewards/accuracies" in line]
    high = new.get("rewards/accuracies_high")
    if late and high is not None and fmean(late) > high + GAP:
        yield Reason(
            "against",
            f"in training {words.number(fmean(late), 2)} of the pairs were won, far above the held-out interval",
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
