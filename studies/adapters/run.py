"""Adapters under dpo and under 2d-dpo, with equal budgets: the same pairs of house in the same order, steps and seeds.

    python studies/adapters/run.py run      2 seeds x {dpo, 2d-dpo} x adapters; begun again, it goes on
    python studies/adapters/run.py table    Markdown of all results

SmolLM2-135M in bfloat16, 10 steps of 8 pairs. Each adapter has the size and learning rate that its page begins with: no
rate was tuned here, for any of them, and an adapter whose rate does not suit so short a run looks weak.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean as mean
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _records import Records, average, estimate, markdown, minus  # noqa: E402

RECORDS = Records(HERE)
ADAPTERS = {
    "lora": ("lora:rank=16", 3e-4),
    "dora": ("dora:rank=16", 3e-4),
    "pissa": ("pissa:rank=16", 3e-4),
    "lora-ga": ("lora:rank=16,init=lora_ga", 3e-4),
    "sara": ("sara:share=0.05", 3e-4),
    "mo-sara": ("mo-sara:experts=5", 1e-3),
    "ropo": ("ropo", 1e-3),
    "ropo-pairs": ("ropo:granularity=pairs", 1e-3),
    "oft": ("oft", 1e-3),
    "miss": ("miss:rank=64", 1e-4),
    "bone": ("bone:block=64", 1e-4),
    "spectral": ("spectral:rank=8", 1e-4),
    "soda": ("soda:rank=64", 1e-3),
}
"""Name -> the adapter and its learning rate."""
OBJECTIVES = {
    "dpo": {"objective": "dpo", "supervision": "sequence"},
    "2d-dpo": {"objective": "2d-dpo", "supervision": "segments"},
}
COMMON: dict[str, Any] = {
    "model": {"name": "smollm2-135m-instruct", "dtype": "bfloat16"},
    "data": "house",
    "held_out": "house",
    "steps": 10,
    "batch_size": 8,
    "max_length": 512,
}


def runs() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what identifies a run, its recipe): all adapters with one seed before the next."""
    for seed in range(2):
        for name, (adapter, rate) in ADAPTERS.items():
            for objective, choices in OBJECTIVES.items():
                key = {"adapter": name, "objective": objective, "seed": seed}
                yield key, COMMON | choices | {"adapter": adapter, "optimizer": f"adamw:lr={rate}"}


def table() -> str:
    """Accuracy over seeds with a 95 % bootstrap interval over test rows, and the difference to lora, paired by row."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for line in RECORDS.lines():
        run = line["run"]
        found.setdefault((run["adapter"], run["objective"]), {})[run["seed"]] = RECORDS.rows(run)
    rows = []
    for adapter, (written, rate) in ADAPTERS.items():
        cells = [f"`{written}`", f"{rate:g}"]
        for objective in OBJECTIVES:
            seeds = found.get((adapter, objective), {})
            wins, margins = (
                (average(seeds, f"rewards/{kind}") for kind in ("accuracies", "margins")) if seeds else ({}, {})
            )
            apart = minus(seeds, found.get(("lora", objective), {}), "rewards/accuracies") if adapter != "lora" else {}
            cells += [estimate(wins, seeds), estimate(apart, seeds, "+.3f")]
            cells.append(f"{mean(margins.values()):.2f}" if margins else "")
        rows.append(tuple(cells))
    heads = [f"{objective}{what}" for objective in OBJECTIVES for what in ("", ", minus lora", ", margin")]
    return markdown(("adapter", "lr", *heads), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    if parser.parse_args().what == "table":
        print(table())
    else:
        RECORDS.carry_out((key, recipe) for key, recipe in runs())


if __name__ == "__main__":
    main()
