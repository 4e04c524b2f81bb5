"""The family ``preference``: accuracy, margin, calibration and length of held-out pairs, and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grainline.evaluation import lengths
from grainline.evaluation.calibration import calibration
from grainline.evaluation.intervals import Paired, mean_interval, paired
from grainline.evaluation.preferences import summarise

Row = Mapping[str, Any]


def figures(rows: Sequence[Row], *, seed: int = 0) -> dict[str, float | None]:
    """All figures of ``rows`` (as in ``rows.jsonl``); those of pairs only where there are pairs with a margin."""
    groups = {row["id"]: row["group"] for row in rows}
    found: dict[str, float | None] = dict(summarise([dict(row) for row in rows], groups, seed=seed))
    judged = with_margin(rows)
    if judged:
        margins, right = _columns(judged)
        at = calibration(margins, right)
        found |= {"calibration/ece": at.ece, "calibration/brier": at.brier}
        found |= lengths.figures(judged, seed=seed)
    if with_reference(rows):
        found |= _flat("against_reference/likelihood", against_reference(rows, seed=seed))
    return found


def tables(rows: Sequence[Row], *, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    judged = with_margin(rows)
    if not judged:
        return {}
    margins, right = _columns(judged)
    return {
        "calibration": calibration(margins, right).table,
        "aspects": aspects(judged, seed=seed),
        "lengths": lengths.table(judged, seed=seed),
    }


def aspects(rows: Sequence[Row], *, seed: int = 0) -> list[dict[str, Any]]:
    """Accuracy and margin in each aspect that the data judges, over the pairs whose answers differ in it."""
    ours = (name.split("/") for row in rows for name in row if name.startswith("rewards/") and name.count("/") == 2)
    names = dict.fromkeys(aspect for _, aspect, _ in ours)
    found = []
    for name in names:
        there = [row for row in rows if f"rewards/{name}/margins" in row]
        line: dict[str, Any] = {"aspect": name, "rows": len(there)}
        for key, column in (("accuracy", "accuracies"), ("margin", "margins")):
            values = [row[f"rewards/{name}/{column}"] for row in there]
            low, high = mean_interval(values, [row["group"] for row in there], seed=seed)
            line |= {key: sum(values) / len(values), f"{key}_low": low, f"{key}_high": high}
        found.append(line)
    return found


def against_reference(rows: Sequence[Row], *, seed: int = 0) -> Paired:
    """How much more often the policy gives the chosen answer the larger mean log-prob a token than the reference does.
    (By implied reward there is nothing to compare: the reference's own is 0.)"""
    there = with_reference(rows)
    sides = [[_by_likelihood(row, who) for row in there] for who in ("policy", "reference")]
    return paired(sides[0], sides[1], [row["group"] for row in there], seed=seed)


def against_run(rows: Sequence[Row], others: Sequence[Row], *, seed: int = 0) -> dict[str, float | None]:
    """Accuracy and margin less those of another run on the same rows; rows that only one has are left out."""
    known = {row["id"]: row for row in others}
    both = [(row, known[row["id"]]) for row in rows if row["id"] in known]
    found: dict[str, float | None] = {"against/rows": float(len(both))}
    for name in ("rewards/accuracies", "rewards/margins", "likelihood/accuracies"):
        there = [(a, b) for a, b in both if name in a and name in b]
        if there:
            first, second = zip(*((a[name], b[name]) for a, b in there), strict=True)
            at = paired(first, second, [a["group"] for a, _ in there], seed=seed)
            found |= _flat(f"against/{name}", at)
    return found


def with_margin(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "rewards/margins" in row and "chosen" in row]


def with_reference(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "reference" in row.get("chosen", ())]


def _by_likelihood(row: Row, who: str) -> float:
    """1, 1/2 or 0: as ``likelihood/accuracies``, of ``who``, from the row's rounded log-probs."""
    from grainline.types import TIE

    chosen, rejected = (sum(row[role][who]) / row[role]["tokens"] for role in ("chosen", "rejected"))
    return 0.5 if abs(chosen - rejected) <= TIE else float(chosen > rejected)


def _columns(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    return [row["rewards/margins"] for row in rows], [row["rewards/accuracies"] for row in rows]


def _flat(name: str, at: Paired) -> dict[str, float | None]:
    return {name: at.difference, f"{name}_low": at.low, f"{name}_high": at.high, f"{name}_p": at.p}
