"""Learned masks by the place in the answer: which share of the tokens an objective such as SparsePO leaves silent.

=====================  ==================================================================
figure                 meaning
=====================  ==================================================================
masks/NAME/zeros       share of answer tokens whose mask is 0
masks/NAME/mean        mean of the mask over all answer tokens
=====================  ==================================================================

Masks exist in training only. A run keeps them in its checkpoints; one whose checkpoint of the adapter's step was
deleted cannot be asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grainline.evaluation.displacement import EDGES

Row = Mapping[str, Any]


def figures(rows: Sequence[Row]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, answers in by_name(rows).items():
        values = [value for answer in answers for value in answer]
        found[f"masks/{name}/zeros"] = _zeros(values)
        found[f"masks/{name}/mean"] = sum(values) / len(values)
    return found


def positions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    table = []
    for name, answers in by_name(rows).items():
        for low, high in zip(EDGES, (*EDGES[1:], None), strict=True):
            values = [value for answer in answers for value in answer[low:high]]
            if values:
                line = {"mask": name, "from": low, "to": high, "tokens": len(values)}
                table.append(line | {"zeros": _zeros(values), "mean": sum(values) / len(values)})
    return table


def by_name(rows: Sequence[Row]) -> dict[str, list[list[float]]]:
    """Each mask's values, a list an answer."""
    found: dict[str, list[list[float]]] = {}
    for row in rows:
        for role in ("chosen", "rejected", "answer"):
            for name, values in row.get(role, {}).items():
                if name.startswith("mask "):
                    found.setdefault(name.removeprefix("mask "), []).append(values)
    return found


def _zeros(values: Sequence[float]) -> float:
    return sum(value == 0 for value in values) / len(values)
