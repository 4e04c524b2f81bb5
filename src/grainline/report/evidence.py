"""What speaks for a run's adapter, what against it, and what nobody has looked at: the reasons behind the headline.

A change counts for or against only where its interval leaves zero (or chance); else it stands under "not known", with
the interval that says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Literal, NamedTuple

from grainline.report import facts, words
from grainline.report.read import Line, RunFiles

SLIGHT = 0.005
"""Nats a token that are called no change."""
GAP = 0.1
"""By how much training accuracy may stand above the held-out interval."""
WIDE = 0.2
"""An interval of an accuracy that is wider than this says little."""

Kind = Literal["for", "against", "open"]
TITLES = {"for": "Speaks for it", "against": "Speaks against it", "open": "Not known"}


class Reason(NamedTuple):
    kind: Kind
    text: str


def reasons(files: RunFiles) -> list[Reason]:
    """All reasons, those of a kind in the order of their weight."""
    names = facts.sets(files)
    new = facts.after(files).get(names[0], {}) if names else {}
    old = facts.before(files).get(names[0], {}) if names else {}
    found = [*_accuracy(old, new), *_likelihood(old, new), *_fit(files, new)]
    found += [Reason("against", f"{_count(len(files.warnings), 'warning')} while it trained")] if files.warnings else []
    if not new:
        found.append(Reason("open", "nothing held out was measured"))
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
        start = old.get(metric, 0.5)
        low, high = (new.get(f"{metric}_{end}", new[metric]) for end in ("low", "high"))
        kind: Kind = "for" if low > start else "against" if high < start else "open"
        said = f"{name} {words.interval(metric, new, 2)}, {words.number(start, 2)} before"
        yield Reason(kind, said)
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
        yield Reason(
            "for" if change > 0 else "against",
            f"chosen answers became {words.number(abs(change), 2)} nats a token {way}",
        )


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
