"""2d-dpo against dpo with equal budgets: on human error spans, and on house with noise in the scores.

    python studies/2d-dpo/run.py spans    5 seeds x {dpo, 2d-dpo} on qa_feedback's spans
    python studies/2d-dpo/run.py noise    2 seeds x noise in the segment scores, on house, with the demo's recipe
    python studies/2d-dpo/run.py table    Markdown of all results

Each run writes one line of results.jsonl and its held-out rows to rows/; runs that are there are not repeated. Equal
budget: same pairs in the same order, same steps, same adapter, optimizer, learning rate and seed; only the choice
under study differs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import yaml

from grainline.data import files

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data" / "qa_feedback"
RESULTS = HERE / "results.jsonl"

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
        test = {"test": str(DATA / "spans_test.jsonl.gz")}
        for seed in range(5):
            for name in ("dpo", "2d-dpo"):
                key = {"study": study, "method": name, "seed": seed}
                yield key, {"data": data, "evaluation": {"data": test, "samples": 0}, "steps": 20} | METHODS[name]
        return
    demo = yaml.safe_load((files.packaged("house") / "recipe.yaml").read_text())
    demo |= {"evaluation": {"data": {"test": "house"}, "samples": 0}, "supervision": "sequence"}
    del demo["out"]
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


def carry_out(study: str) -> None:
    import grainline as gl

    done = [line["run"] for line in results()]
    for key, recipe in runs(study):
        if key in done:
            continue
        out = Path(tempfile.mkdtemp()) / "run"
        run = gl.align(**COMMON | recipe, seed=key["seed"], out=str(out), progress=False)
        found = {k.removeprefix("eval_test_"): v for k, v in run.summary().items() if k.startswith("eval_test_")}
        run.evaluate({"test": run.recipe.evaluation.data["test"]}, progress=False)
        (HERE / "rows").mkdir(exist_ok=True)
        with gzip.open(HERE / "rows" / f"{file_name(key)}.json.gz", "wt") as file:
            json.dump(json.loads((out / "evaluation-test.json").read_text())["rows"], file)
        with RESULTS.open("a") as file:
            file.write(json.dumps({"run": key, "metrics": found, "seconds": run.summary()["seconds"]}) + "\n")
        shutil.rmtree(out.parent)
        print(key, {k: round(found[k], 3) for k in ("rewards/accuracies", "rewards/margins")}, flush=True)


def table(study: str) -> str:
    """Markdown: the mean over seeds, and the difference to dpo, each with a 95 % bootstrap interval over test rows.

    Rows are pairs averaged over seeds; differences are paired by row. Each seed's accuracy stands beside.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for line in results():
        run = line["run"]
        if run["study"] == study:
            label = run["method"] + (f", noise {run['noise']}" if run.get("noise", "0") != "0" else "")
            found.setdefault(label, {})[run["seed"]] = rows_of(run)
    lines = [
        "| method | seeds | accuracy | per seed | minus dpo | margin |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    plain = found.get("dpo", {})
    for label, seeds in found.items():
        wins, margins = (average(seeds, f"rewards/{kind}") for kind in ("accuracies", "margins"))
        each = [mean(row["rewards/accuracies"] for row in rows.values()) for rows in seeds.values()]
        shared = {seed: plain[seed] for seed in seeds if seed in plain}
        base = average(shared, "rewards/accuracies") if shared else {}
        apart = {row: wins[row] - base[row] for row in base}
        gain = "" if label == "dpo" or not base else f"{mean(apart.values()):+.3f} {interval(apart)}"
        cells = (label, str(len(seeds)), f"{mean(wins.values()):.3f} {interval(wins)}")
        cells += (" ".join(f"{value:.3f}" for value in each), gain, f"{mean(margins.values()):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of(run: Mapping[str, Any]) -> dict[str, Any]:
    with gzip.open(HERE / "rows" / f"{file_name(run)}.json.gz", "rt") as file:
        return {row["id"]: row for row in json.load(file)}


def file_name(run: Mapping[str, Any]) -> str:
    return "-".join(str(value).replace(" ", "") for value in run.values())


def average(seeds: Mapping[int, Mapping[str, Any]], metric: str) -> dict[str, float]:
    """row id -> mean over seeds."""
    ids = next(iter(seeds.values()))
    return {row: mean(rows[row][metric] for rows in seeds.values()) for row in ids}


def interval(values: Mapping[str, float]) -> str:
    """95 % bootstrap over rows (each test prompt of qa_feedback has one row; house has 12 prompts with two)."""
    rng, rows = random.Random(0), list(values.values())
    draws = sorted(mean(rng.choices(rows, k=len(rows))) for _ in range(2000))
    return f"[{draws[50]:.3f}, {draws[1949]:.3f}]"


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["spans", "noise", "table"])
    what = parser.parse_args().what
    if what == "table":
        for study in sorted({line["run"]["study"] for line in results()}):
            print(f"\n{study}\n\n{table(study)}")
        return
    carry_out(what)


if __name__ == "__main__":
    main()
