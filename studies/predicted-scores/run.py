"""2d-dpo on *predicted* segment scores against dpo, and against 2d-dpo on the data's own scores, with equal budgets.

    python studies/predicted-scores/run.py house    3 seeds x {dpo, 2d-dpo: own, predicted, shuffled}, the demo's recipe
    python studies/predicted-scores/run.py prefs    3 seeds x {dpo, 2d-dpo: predicted, shuffled} on qa_feedback's
                                                    preferences, which nobody scored; 335 other answers are marked
    python studies/predicted-scores/run.py table    Markdown of all results

No row is scored by a head that was taught on its prompt: prompts are dealt into five folds, each scored by a
head that the marks of the other four taught. ``shuffled`` deals the predicted scores out anew among all sentences: what
a method gains from scores beyond that, it gains from their places.
Heads, scores and features are kept in the cache.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from grainline.data import files
from grainline.places import cache_dir
from grainline.reward_training import Plan, train
from grainline.scoring import score

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _records import Records, beside_dpo  # noqa: E402

RECORDS = Records(HERE)
DATA = HERE.parents[2] / "shared" / "data" / "qa_feedback"
MADE = cache_dir() / "studies" / "predicted-scores"
MODEL = "smollm2-135m-instruct"
SIDES = ("chosen", "rejected")
FOLDS = 5
ASPECTS = {
    "house": ("helpfulness", "correctness", "safety", "completeness", "clarity"),
    "prefs": ("factuality", "relevance"),
}
PREFS = {
    "model": {"name": MODEL, "dtype": "bfloat16"},
    "adapter": "lora:rank=16",
    "optimizer": "adamw:lr=3e-4",
    "batch_size": 8,
    "max_tokens": 2048,
    "steps": 40,
}
Row = dict[str, Any]


def runs(study: str) -> Iterator[tuple[Row, Row]]:
    """(what identifies a run, its recipe), seed by seed."""
    if study == "house":
        common = yaml.safe_load((files.packaged("house") / "recipe.yaml").read_text())
        for key in ("out", "evaluation", "supervision", "objective"):
            common.pop(key)
        own, held_out = read("house"), "house"
    else:
        common, own, held_out = PREFS, read(str(DATA / "prefs_train.jsonl.gz")), str(DATA / "prefs_test.jsonl.gz")
    marked = own if study == "house" else read(str(DATA / "spans_train.jsonl.gz"))
    predicted = scored(study, marked, own)
    segments = {"supervision": "segments", "objective": "2d-dpo"}
    plain = write("plain", study, own)
    for seed in range(3):
        methods = {
            "dpo": {"data": plain, "objective": "dpo"},
            "2d-dpo, predicted": {"data": write("predicted", study, predicted)} | segments,
            "2d-dpo, shuffled": {"data": write(f"shuffled-{seed}", study, shuffled(predicted, seed))} | segments,
        }
        if study == "house":
            methods["2d-dpo, own"] = {"data": plain} | segments
        for method, choices in methods.items():
            yield {"study": study, "method": method, "seed": seed}, common | choices | {"held_out": held_out}


# --------------------------------------------------------------------------------------------------------------- scores


def scored(study: str, marked: list[Row], rows: list[Row]) -> list[Row]:
    """``rows``, each by a head that has not seen its prompt."""
    prompts = sorted({prompt(row) for row in (*marked, *rows)})
    random.Random(0).shuffle(prompts)
    fold = {name: n % FOLDS for n, name in enumerate(prompts)}
    found: list[Row] = []
    for k in range(FOLDS):
        lessons, asked = ([row for row in marked if fold[prompt(row)] != k], [r for r in rows if fold[prompt(r)] == k])
        head, out = MADE / study / f"head-{k}", MADE / study / f"scored-{k}.jsonl"
        if not (head / "head.json").is_file():
            told = train(lessons, head, Plan(model=MODEL), quiet=False)
            auc = {key: round(value, 3) for key, value in told["unseen"].items() if key.endswith("/auc")}
            print(f"fold {k}, said of its own unseen rows: {auc}", flush=True)
        found += read(
            str(score(asked, f"head:path={head}", out, aspects=ASPECTS[study], replace=True, quiet=False).path)
        )
    return found


def prompt(row: Row) -> str:
    return str(row.get("group") or json.dumps(row["prompt"]))


def shuffled(rows: list[Row], seed: int) -> list[Row]:
    rng = random.Random(seed)
    every = [line for row in rows for side in SIDES for line in row[f"{side}_aspect_scores"]]
    rng.shuffle(every)
    return [
        row | {f"{side}_aspect_scores": [every.pop() for _ in row[f"{side}_aspect_scores"]] for side in SIDES}
        for row in rows
    ]


def read(source: str) -> list[Row]:
    """Raw rows of a file or packaged data set."""
    return [dict(row.row) for row in files.rows(source, split="train")[1]]


def write(name: str, study: str, rows: list[Row]) -> str:
    """In one order for all methods, so that all see the same pairs at the same steps."""
    file = MADE / study / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["id"])))
    return str(file)


# ---------------------------------------------------------------------------------------------------------------- table


def table(study: str) -> str:
    """Markdown of a study."""
    found: dict[str, dict[int, Row]] = {}
    for line in RECORDS.lines():
        if line["run"]["study"] == study:
            found.setdefault(line["run"]["method"], {})[line["run"]["seed"]] = RECORDS.rows(line["run"])
    return beside_dpo(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["house", "prefs", "table"])
    what = parser.parse_args().what
    if what != "table":
        RECORDS.carry_out(runs(what))
    for study in sorted({line["run"]["study"] for line in RECORDS.lines()}):
        print(f"\n{study}\n\n{table(study)}")


if __name__ == "__main__":
    main()
