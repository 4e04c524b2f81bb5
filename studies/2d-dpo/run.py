"""2d-dpo against dpo with equal budgets: on human error spans, and on house with noise in the scores.

    python studies/2d-dpo/run.py spans    5 seeds x {dpo, 2d-dpo} on qa_feedback's spans
    python studies/2d-dpo/run.py noise    2 seeds x noise in the segment scores, on house, with the demo's recipe
    python studies/2d-dpo/run.py table    Markdown of all results

Equal budget: same pairs in the same order, same steps, same adapter, optimizer, learning rate and seed; only the choice
under study differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from grainline.data import files

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _records import Records, beside  # noqa: E402

RECORDS = Records(HERE)
DATA = HERE.parents[2] / "shared" / "data" / "qa_feedback"

COMMON = {
    "model": {"name": "smollm2-135m-instruct", "dtype": "bfloat16"},
    "adapter": "lora:rank=16",
    "optimizer": "adamw:lr=3e-4",
    "batch_size": 8,
    "max_tokens": 2048,
}
METHODS = {
    "dpo": {"objective": "dpo"},
    "2d-dpo": {"supervision": "segments", "objective": "2d-dpo"},
}
NOISE = {"0": 0.0, "0.5": 0.5, "shuffled": None}
"""Standard deviation of what is added to each score on its scale of 0 to 1, or scores dealt out anew."""


def runs(study: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what identifies a run, its recipe) in an order that compares early."""
    if study == "spans":
        data = {"path": str(DATA / "spans_train.jsonl.gz")}
        test = str(DATA / "spans_test.jsonl.gz")
        for seed in range(5):
            for name in ("dpo", "2d-dpo"):
                key = {"study": study, "method": name, "seed": seed}
                yield key, {"data": data, "held_out": test, "steps": 20} | METHODS[name]
        return
    demo = yaml.safe_load((files.packaged("house") / "recipe.yaml").read_text())
    demo |= {"held_out": "house", "supervision": "sequence"}
    del demo["out"], demo["evaluation"]
    for seed in range(3):
        for name, level in {**NOISE, "dpo": 0.0}.items():
            if seed == 2 and name != "0":
                continue  # a third seed of what the demo does
            method = "dpo" if name == "dpo" else "2d-dpo"
            key = {"study": study, "method": method, "noise": "0" if name == "dpo" else name, "seed": seed}
            yield key, demo | {"data": noisy(level, seed)} | METHODS[method]


def noisy(level: float | None, seed: int) -> str:
    """house's training rows with noise in the scores, clipped to the scale: a file."""
    if level == 0:
        return "house"
    rng = random.Random(f"{level} {seed}")
    rows = [dict(row.row) for row in files.rows("house", split="train")[1]]
    every = [
        s for row in rows for side in ("chosen", "rejected") for line in row[f"{side}_aspect_scores"] for s in line
    ]
    rng.shuffle(every)
    for row in rows:
        for side in ("chosen", "rejected"):
            row[f"{side}_aspect_scores"] = [
                [every.pop() if level is None else min(4.0, max(0.0, s + rng.gauss(0, 4 * level))) for s in line]
                for line in row[f"{side}_aspect_scores"]
            ]
    file = Path(tempfile.mkdtemp()) / "house.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def table(study: str) -> str:
    """Markdown of a study, with the noise in its methods' names."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for line in RECORDS.lines():
        run = line["run"]
        if run["study"] == study:
            label = run["method"] + (f", noise {run['noise']}" if run.get("noise", "0") != "0" else "")
            found.setdefault(label, {})[run["seed"]] = RECORDS.rows(run)
    return beside("dpo", found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["spans", "noise", "table"])
    what = parser.parse_args().what
    if what != "table":
        RECORDS.carry_out((key, COMMON | recipe) for key, recipe in runs(what))
        return
    for study in sorted({line["run"]["study"] for line in RECORDS.lines()}):
        print(f"\n{study}\n\n{table(study)}")


if __name__ == "__main__":
    main()
