"""What the studies share: a run once, its held-out rows kept, and tables with intervals.

Each run writes one line of ``results.jsonl`` (its metrics, and the gradient's norm at each step) and its held-out rows
to ``rows/``; runs that are there are not repeated. Seconds are those of the processor, over the training steps alone,
so that they say little of what else the machine did.
Intervals are Grainline's own (``evaluation/intervals.py``): 95 %, drawn over prompts, rows of a prompt together.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from grainline.evaluation.intervals import mean_interval

Key = Mapping[str, Any]
"""What identifies a run: its study, method, seed and so on. A row's file is named by the values, in order."""
Seeds = Mapping[int, Mapping[str, Any]]
"""Of one method: seed -> id -> held-out row."""


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

    def by_method(self, study: str) -> dict[str, dict[int, dict[str, Any]]]:
        """Held-out rows of a study: method -> seed -> id -> row."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for run in (line["run"] for line in self.lines()):
            if run["study"] == study:
                found.setdefault(run["method"], {})[run["seed"]] = self.rows(run)
        return found

    def carry_out(self, runs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Each (key, recipe) without a line yet: trained, then evaluated on what the recipe calls ``held_out``."""
        import grainline as gl

        done = [line["run"] for line in self.lines()]
        for key, recipe in runs:
            if key in done:
                continue
            out, recipe, watch = Path(tempfile.mkdtemp()) / "run", dict(recipe), Stopwatch()
            held_out = recipe.pop("held_out")
            choices = recipe | {"evaluation": {"samples": 0}, "seed": key["seed"], "out": str(out)}
            run = gl.align(**choices, callbacks=[watch], progress=False)
            found = run.evaluate({"test": held_out}, families=("preference",), progress=False)["test"]
            lines = (out / "evaluation" / "test" / "rows.jsonl").read_text().splitlines()
            self._rows_of(key).parent.mkdir(exist_ok=True)
            with gzip.open(self._rows_of(key), "wt") as file:
                json.dump([_without_tokens(json.loads(line)) for line in lines], file)
            norms = [round(line["grad_norm"], 4) for line in run.metrics if "grad_norm" in line]
            with self.file.open("a") as file:
                line = {"run": key, "metrics": found, "seconds": watch.seconds, "grad_norms": norms}
                file.write(json.dumps(line) + "\n")
            shutil.rmtree(out.parent)
            print(key, {k: round(found[k], 3) for k in ("rewards/accuracies", "rewards/margins")}, flush=True)

    def _rows_of(self, run: Key) -> Path:
        return self.folder / "rows" / ("-".join(str(value).replace(" ", "") for value in run.values()) + ".json.gz")


class Stopwatch:
    """A callback: the processor's seconds from the first step to the end of the last."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.seconds = -time.process_time()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.process_time()


def _without_tokens(row: dict[str, Any]) -> dict[str, Any]:
    """A row's numbers; its log-probs token by token would fill megabytes."""
    return {key: value for key, value in row.items() if key not in ("chosen", "rejected")}


def beside(base: str, found: Mapping[str, Seeds], more: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Markdown: each method's held-out rows as means over seeds, and differences to the method ``base``.

    Rows are pairs averaged over seeds; differences are paired by row and take only seeds that both have. Each seed's
    accuracy stands beside. ``more`` are further columns: name -> method -> cell.
    """
    columns, rows = more or {}, []
    for method, seeds in found.items():
        apart = {} if method == base else minus(seeds, found.get(base, {}), "rewards/accuracies")
        each = " ".join(f"{mean(row['rewards/accuracies'] for row in part.values()):.3f}" for part in seeds.values())
        cells = [method, str(len(seeds)), estimate(average(seeds, "rewards/accuracies"), seeds), each]
        cells += [estimate(apart, seeds, "+.3f"), estimate(average(seeds, "rewards/margins"), seeds)]
        rows.append((*cells, *(column[method] for column in columns.values())))
    return markdown(("method", "seeds", "accuracy", "per seed", f"minus {base}", "margin", *columns), rows)


def average(seeds: Seeds, metric: str) -> dict[str, float]:
    """row id -> mean over seeds."""
    ids = next(iter(seeds.values()))
    return {row: mean(rows[row][metric] for rows in seeds.values()) for row in ids}


def minus(mine: Seeds, theirs: Seeds, metric: str) -> dict[str, float]:
    """row id -> difference of the means over the seeds of ``mine`` that ``theirs`` has too; empty without any."""
    shared = [seed for seed in mine if seed in theirs]
    if not shared:
        return {}
    ours, base = (average({seed: runs[seed] for seed in shared}, metric) for runs in (mine, theirs))
    return {row: ours[row] - base[row] for row in base}


def estimate(values: Mapping[str, float], seeds: Seeds, digits: str = ".3f") -> str:
    """The mean of rows' numbers and its interval, the prompts of the rows being those of ``seeds``; empty for none."""
    if not values:
        return ""
    rows = next(iter(seeds.values()))
    low, high = mean_interval(list(values.values()), [rows[row]["group"] for row in values])
    return f"{mean(values.values()):{digits}} [{low:.3f}, {high:.3f}]"


def markdown(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ("---",) * len(columns), *rows))
