"""What the studies share: a run once, its held-out rows kept, and tables with intervals.

Each run writes one line of ``results.jsonl`` and its held-out rows to ``rows/``; runs that are there are not repeated.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean as mean
from typing import Any

Key = Mapping[str, Any]
"""What identifies a run: its study, method, seed and so on. A row's file is named by the values, in order."""


class Records:
    """The results of the studies in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "results.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.is_file() else []

    def rows(self, run: Key) -> dict[str, Any]:
        """Held-out rows of a run: id -> metrics."""
        with gzip.open(self._rows_of(run), "rt") as file:
            return {row["id"]: row for row in json.load(file)}

    def carry_out(self, runs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Each (key, recipe) without a line yet: trained, then evaluated on what the recipe calls ``held_out``."""
        import grainline as gl

        done = [line["run"] for line in self.lines()]
        for key, recipe in runs:
            if key in done:
                continue
            out, recipe = Path(tempfile.mkdtemp()) / "run", dict(recipe)
            held_out = recipe.pop("held_out")
            run = gl.align(**recipe, evaluation={"samples": 0}, seed=key["seed"], out=str(out), progress=False)
            found = run.evaluate({"test": held_out}, families=("preference",), progress=False)["test"]
            lines = (out / "evaluation" / "test" / "rows.jsonl").read_text().splitlines()
            self._rows_of(key).parent.mkdir(exist_ok=True)
            with gzip.open(self._rows_of(key), "wt") as file:
                json.dump([json.loads(line) for line in lines], file)
            with self.file.open("a") as file:
                file.write(json.dumps({"run": key, "metrics": found, "seconds": run.summary()["seconds"]}) + "\n")
            shutil.rmtree(out.parent)
            print(key, {k: round(found[k], 3) for k in ("rewards/accuracies", "rewards/margins")}, flush=True)

    def _rows_of(self, run: Key) -> Path:
        return self.folder / "rows" / ("-".join(str(value).replace(" ", "") for value in run.values()) + ".json.gz")


def beside_dpo(found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """Markdown: method -> seed -> held-out rows, as means over seeds and differences to ``dpo``.

    Rows are pairs averaged over seeds; differences are paired by row; each has a 95 % bootstrap interval over rows.
    Each seed's accuracy stands beside.
    """
    rows = []
    for method, seeds in found.items():
        wins, margins = (average(seeds, f"rewards/{kind}") for kind in ("accuracies", "margins"))
        each = " ".join(f"{mean(row['rewards/accuracies'] for row in part.values()):.3f}" for part in seeds.values())
        apart = minus(seeds, found.get("dpo", {}), "rewards/accuracies") if method != "dpo" else {}
        gain = f"{mean(apart.values()):+.3f} {interval(apart)}" if apart else ""
        accuracy = f"{mean(wins.values()):.3f} {interval(wins)}"
        rows.append((method, str(len(seeds)), accuracy, each, gain, f"{mean(margins.values()):.2f}"))
    return markdown(("method", "seeds", "accuracy", "per seed", "minus dpo", "margin"), rows)


def average(seeds: Mapping[int, Mapping[str, Any]], metric: str) -> dict[str, float]:
    """row id -> mean over seeds."""
    ids = next(iter(seeds.values()))
    return {row: mean(rows[row][metric] for rows in seeds.values()) for row in ids}


def minus(
    mine: Mapping[int, Mapping[str, Any]], theirs: Mapping[int, Mapping[str, Any]], metric: str
) -> dict[str, float]:
    """row id -> difference of the means over the seeds of ``mine`` that ``theirs`` has too; empty without any."""
    shared = [seed for seed in mine if seed in theirs]
    if not shared:
        return {}
    ours, base = (average({seed: runs[seed] for seed in shared}, metric) for runs in (mine, theirs))
    return {row: ours[row] - base[row] for row in base}


def interval(values: Mapping[str, float]) -> str:
    """95 % bootstrap over rows (each test prompt of qa_feedback has one row; house has 12 prompts with two)."""
    rng, rows = random.Random(0), list(values.values())
    draws = sorted(mean(rng.choices(rows, k=len(rows))) for _ in range(2000))
    return f"[{draws[50]:.3f}, {draws[1949]:.3f}]"


def markdown(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ("---",) * len(columns), *rows))
