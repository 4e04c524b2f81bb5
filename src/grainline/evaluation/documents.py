"""Does it matter where the relevant document stands? Accuracy by its place (PAPEFT, Zhang et al. 2024,
arXiv:2404.01430).

The data say in a column of numbers where the relevant document of each row stands; the step ``permute`` of curation
makes rows that show it in every place, and keeps that column.

======================  ===============================================================================================
figure                  meaning
======================  ===============================================================================================
documents/accuracy      mean over places of the accuracy there
documents/fluctuation   standard deviation (over n) of the accuracy over the places; the paper's own measure of
                        fluctuation could not be read [inferred]
documents/range         largest less smallest accuracy
documents/consistent    share of questions judged alike in all their places; rows with the same two answers are one
======================  ===============================================================================================

Few rows a place make places differ by chance alone: compare the fluctuation with the intervals in the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from grainline.evaluation.intervals import mean_interval

Row = Mapping[str, Any]


def figures(lines: Sequence[Row], *, seed: int = 0) -> dict[str, float | None]:
    """Of lines with ``place``, ``question``, ``group``, ``right``."""
    found = [line["accuracy"] for line in table(lines, seed=seed)]
    mean = sum(found) / len(found)
    asked: dict[str, list[float]] = {}
    for line in lines:
        asked.setdefault(line["question"], []).append(line["right"])
    several = [set(answers) for answers in asked.values() if len(answers) > 1]
    return {
        "documents/accuracy": mean,
        "documents/fluctuation": (sum((a - mean) ** 2 for a in found) / len(found)) ** 0.5,
        "documents/range": max(found) - min(found),
        "documents/consistent": sum(len(answers) == 1 for answers in several) / len(several) if several else None,
    }


def table(lines: Sequence[Row], *, seed: int = 0) -> list[dict[str, Any]]:
    found = []
    for place in sorted({line["place"] for line in lines}):
        there = [line for line in lines if line["place"] == place]
        right = [line["right"] for line in there]
        low, high = mean_interval(right, [line["group"] for line in there], seed=seed)
        at = {"place": place, "rows": len(there), "accuracy": sum(right) / len(right)}
        found.append(at | {"accuracy_low": low, "accuracy_high": high})
    return found


def question(answers: Sequence[str]) -> str:
    """Which question it is, whatever the order of its documents."""
    return hashlib.sha256("\x00".join(answers).encode(errors="surrogatepass")).hexdigest()[:12]
