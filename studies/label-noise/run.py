"""Does the disagreement of reward heads find wrong labels?

    python studies/label-noise/run.py [house|qa_feedback]    all settings that results.jsonl has not
    python studies/label-noise/run.py table                  Markdown of all results

A share of pairs is turned the wrong way round, several heads learn from what is then said, and each pair is given what
the heads disagree by. Does that separate the turned pairs from the others? Measured as the AUC: how likely a turned pair
has the larger number than a clean one; 1/2 is chance. Features are those of frozen SmolLM2-135M, read once and kept.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grainline.data.files import packaged
from grainline.features import Features, Passage, Taken
from grainline.models import Choice, load
from grainline.places import cache_dir

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
QA = HERE.parents[2] / "shared" / "data" / "qa_feedback" / "prefs_train.jsonl.gz"
LAYERS = (0.5, 0.75, 1.0)


class Pairs(NamedTuple):
    """Pairs in features, and the prompt of each: rows of a prompt are drawn and left out together."""

    chosen: Tensor  # (P, L, H) float32
    rejected: Tensor
    groups: list[str]


def house() -> list[dict[str, Any]]:
    """All 308 pairs that come with Grainline: their labels are right by construction."""
    folder = packaged("house")
    lines = [line for part in ("train", "test") for line in (folder / f"{part}.jsonl").open(encoding="utf-8")]
    return [{**row, "group": row["id"][:-1]} for row in map(json.loads, lines)]


def qa_feedback() -> list[dict[str, Any]]:
    """Human preferences between four answers to each of 170 questions; people disagree, so some are wrong already."""
    with gzip.open(QA, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    questions = list(dict.fromkeys(row["group"] for row in rows))[:170]
    return [row for row in rows if row["group"] in set(questions)]


DATA = {"house": house, "qa_feedback": qa_feedback}


def features(name: str) -> Pairs:
    rows = DATA[name]()
    sides = [Passage(r["prompt"], r[side], ((0, len(r[side])),)) for side in ("chosen", "rejected") for r in rows]
    read = Features(
        load(Choice("smollm2-135m-instruct", dtype="bfloat16")),
        cache_dir() / "features",
        Taken(layers=LAYERS, max_tokens=2048),
        quiet=False,
    )(sides)
    keep = [i for i in range(len(rows)) if read[i] is not None and read[i + len(rows)] is not None]
    chosen, rejected = (
        torch.stack([read[i + shift] for i in keep]).view(len(keep), len(LAYERS), -1) for shift in (0, len(rows))
    )
    return Pairs(chosen, rejected, [rows[i]["group"] for i in keep])


if __name__ == "__main__":
    pairs = features(sys.argv[1])
    print(pairs.chosen.shape, len(set(pairs.groups)))
