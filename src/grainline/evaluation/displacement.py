r"""Where training moved the answers: which rise, which fall, where in the answer, and how far from the reference.

A preference loss asks for a difference only; both answers may fall, and their probability goes to text that nobody
looked at (likelihood displacement: Razin et al. 2024, arXiv:2410.08847). With the token log-ratio
:math:`\rho_t = \log \pi(y_t) - \log \pi_0(y_t)` in nats:

=============================  =======================================================================================
figure                         meaning
=============================  =======================================================================================
displacement/chosen, rejected  mean sum of rho over an answer, nats an answer; below 0 the answers have become less
                               likely than they were
displacement/*_per_token       mean over answers of the mean rho, nats a token
displacement/chosen_falls      share of chosen answers that have become less likely
displacement/both_fall         share of pairs both of whose answers have
kl/chosen_per_token, rejected  mean over all tokens of KL(reference || policy), over the whole vocabulary, exact, nats
displacement/first_N           share of the whole margin (sum of rho of chosen minus that of rejected, over all pairs)
                               that the first N tokens of the answers make
=============================  =======================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grainline.evaluation.intervals import mean_interval

Row = Mapping[str, Any]

EDGES: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64, 128)
"""Tokens at which the bins of positions begin."""
FIRST = (1, 4, 16, 64)
"""Numbers of first tokens whose share of the margin is told."""
LEAST = 1e-3
"""Of a margin (mean, nats a pair) that is smaller no share is told: it would be the share of a rounding."""


def figures(rows: Sequence[Row], *, seed: int = 0) -> dict[str, float | None]:
    """The table above, of pairs with a reference; of labelled rows the figures by label."""
    found: dict[str, float | None] = {}
    groups = [row["group"] for row in rows]
    for role, answers, those in _roles(rows, groups):
        moved = [sum(_ratio(answer)) for answer in answers]
        each = [m / a["tokens"] for m, a in zip(moved, answers, strict=True)]
        for name, values in ((f"displacement/{role}", moved), (f"displacement/{role}_per_token", each)):
            found[name] = sum(values) / len(values)
            found[f"{name}_low"], found[f"{name}_high"] = mean_interval(values, those, seed=seed)
        if "kl" in answers[0]:
            found[f"kl/{role}_per_token"] = _mean([k for answer in answers for k in answer["kl"]])
    pairs = [row for row in rows if "chosen" in row]
    if pairs:
        falls = [(sum(_ratio(row["chosen"])) < 0, sum(_ratio(row["rejected"])) < 0) for row in pairs]
        found["displacement/chosen_falls"] = sum(chosen for chosen, _ in falls) / len(falls)
        found["displacement/both_fall"] = sum(all(both) for both in falls) / len(falls)
        for line in margin_shares(rows):
            found[f"displacement/first_{line['tokens']}"] = line["share"]
    return found


def positions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Change and divergence by the place in the answer, each the mean over the tokens that stand there."""
    table = []
    for role, answers, _ in _roles(rows, [row["group"] for row in rows]):
        for low, high in zip(EDGES, (*EDGES[1:], None), strict=True):
            change = [r for answer in answers for r in _ratio(answer)[low:high]]
            kl = [k for answer in answers for k in answer.get("kl", ())[low:high]]
            if change:
                line: dict[str, Any] = {"from": low, "to": high, "role": role, "tokens": len(change)}
                table.append(line | {"change": _mean(change), "kl": _mean(kl)})
    return table


def margin_shares(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Which share of all pairs' margin together the first tokens of both answers make; null where there is no margin
    to speak of."""
    pairs = [(_ratio(row["chosen"]), _ratio(row["rejected"])) for row in rows if "chosen" in row]
    if not pairs:
        return []
    whole = sum(sum(chosen) - sum(rejected) for chosen, rejected in pairs)
    table = []
    for n in FIRST:
        first = sum(sum(chosen[:n]) - sum(rejected[:n]) for chosen, rejected in pairs)
        table.append({"tokens": n, "share": first / whole if abs(whole) / len(pairs) >= LEAST else None})
    return table


def _ratio(answer: Mapping[str, Any]) -> list[float]:
    return [p - r for p, r in zip(answer["policy"], answer["reference"], strict=True)]


def _roles(rows: Sequence[Row], groups: Sequence[str]) -> list[tuple[str, list[Any], list[str]]]:
    """(role, answers, their prompts) of those roles that some row has; a labelled answer's role is its label."""
    found = []
    for role, has in (
        ("chosen", lambda row: "chosen" in row),
        ("rejected", lambda row: "rejected" in row),
        ("desirable", lambda row: row.get("label") is True),
        ("undesirable", lambda row: row.get("label") is False),
    ):
        there = [(row, group) for row, group in zip(rows, groups, strict=True) if has(row)]
        if there:
            answers = [row[role] if role in row else row["answer"] for row, _ in there]
            found.append((role, answers, [group for _, group in there]))
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
