"""What policy and reference say of each answer, token by token: the part of a row that figures are computed again from.

Numbers are rounded to six decimals before anything is computed of them, so that whoever computes a figure from the file
gets the figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grainline.types import Batch, LogProbs

if TYPE_CHECKING:
    from torch import Tensor

DECIMALS = 6


def look(batch: Batch, policy: LogProbs, against: LogProbs | None) -> list[dict[str, Any]]:
    """``chosen`` and ``rejected`` of each pair, or ``answer`` and ``label`` of each labelled row: its ``tokens``, and
    lists of numbers, one a token."""
    values = {"policy": policy.token}
    if against is not None:
        values["reference"] = against.token
    if policy.kl is not None:
        values["kl"] = policy.kl
    values |= {f"mask {name}": value for name, value in (policy.heads or {}).items() if "mask" in name}
    answers = answers_of(policy.mask, values)
    ids = batch.facts.ids
    if not hasattr(batch.facts, "margin"):
        labels = batch.facts.label.tolist()
        return [{"label": label, "answer": answers[i]} for i, label in enumerate(labels)]
    return [{"chosen": answers[i], "rejected": answers[len(ids) + i]} for i in range(len(ids))]


def answers_of(mask_BT: Tensor, values: dict[str, Tensor]) -> list[dict[str, Any]]:
    """One dict a row: how many tokens it has, and of each of ``values`` (B, T) its list."""
    lengths = mask_BT.sum(-1).tolist()
    lists = {name: value.tolist() for name, value in values.items()}
    return [
        {"tokens": length, **{name: [_rounded(v) for v in rows[b][:length]] for name, rows in lists.items()}}
        for b, length in enumerate(lengths)
    ]


def _rounded(value: float) -> float:
    return round(value, DECIMALS) + 0.0  # no minus zero
