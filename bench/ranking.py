"""How often are the best and the worst of n answers found, with how many comparisons, by a judge who is not sure?

    python bench/ranking.py         half a minute; writes docs/assets/ranking.svg and bench/results/ranking.json

Answers are a standard normal apart in quality. A judge who compares i and j is right with Bradley and Terry's
probability, sigma(sharpness * (q_i - q_j)), drawn once a pair. Sharpness 1 is right in 72 % of the duels of two random
answers, 2 in 83 %, 4 in 91 %; the figure's panels are these three. No model is run.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from grainline.curation._ranking import Table, contest, play

ROOT = Path(__file__).resolve().parents[1]
SHARPNESS = (1.0, 2.0, 4.0)
SIZES = (2, 4, 8, 16, 32)
WAYS: dict[str, tuple[Any, bool]] = {  # name -> way, whether the other is a drawn loser
    "iterative": ("iterative", False),
    "iterative, a loser": ("iterative", True),
    "knockout": ("knockout", False),
    "insertion": ("insertion", False),
    "robin": ("robin", False),
}


def main() -> None:
    options = parse()
    found = list(measured(options.rows, options.seed))
    for line in found:
        print(
            "{sharpness:3.0f}  n={n:<3d} {way:20s} {comparisons:6.1f} comparisons  right {right:.2f}   "
            "best {best:.3f}  worst {worst:.3f}  chosen better {better:.3f}".format(**line)
        )
    options.json.write_text(json.dumps({"rows": options.rows, "seed": options.seed, "found": found}, indent=1) + "\n")
    draw(found, options.figure)


def parse() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, default=1500, metavar="N", help="prompts a point, default 1500")
    made.add_argument("--seed", type=int, default=0, metavar="N")
    made.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "ranking.json", metavar="FILE")
    made.add_argument("--figure", type=Path, default=ROOT / "docs" / "assets" / "ranking.svg", metavar="FILE")
    return made.parse_args()


def measured(rows: int, seed: int) -> Iterator[dict[str, Any]]:
    for sharpness in SHARPNESS:
        for n in SIZES:
            for name, (way, loser) in WAYS.items():
                yield {"sharpness": sharpness, "n": n, "way": name} | point(n, way, loser, sharpness, rows, seed)


def point(n: int, way: Any, loser: bool, sharpness: float, rows: int, seed: int) -> dict[str, float]:
    rng = random.Random(f"{seed} {n}")
    quality = [[rng.gauss(0, 1) for _ in range(n)] for _ in range(rows)]
    tables = [Table(rng.sample(range(n), n)) for _ in range(rows)]
    right = []

    def judge(duels: list[tuple[int, int, int]]) -> list[float]:
        heard = []
        for k, i, j in duels:
            apart = quality[k][i] - quality[k][j]
            says_first = rng.random() < 1 / (1 + math.exp(-sharpness * apart))
            right.append(says_first == (apart > 0))
            heard.append(float(says_first))
        return heard

    standings = play([contest(table, way, rng.choice if loser else None) for table in tables], judge)
    top, low, better = [], [], []
    for q, scores in zip(quality, standings, strict=True):
        placed = [(score, rng.random(), i) for i, score in enumerate(scores) if score is not None]
        if not placed:  # a robin of equal points
            continue
        best, worst = max(placed)[2], min(placed)[2]  # of equals one is drawn
        top.append(q[best] == max(q))
        low.append(q[worst] == min(q))
        better.append(q[best] > q[worst])
    return {
        "comparisons": fmean(table.met for table in tables),
        "right": fmean(right),
        "best": fmean(top),
        "worst": fmean(low),
        "better": fmean(better),
    }


def draw(found: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt
    from _plots import ON_ANY_PAGE

    mpl.rcParams |= {"svg.hashsalt": "grainline", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    mpl.rcParams |= ON_ANY_PAGE
    colours = dict(zip(WAYS, ("#0072b2", "#56b4e9", "#d55e00", "#009e73", "#808080"), strict=True))
    figure, axes = plt.subplots(2, len(SHARPNESS), figsize=(9.2, 5.4), sharex="row", sharey=True)
    for column, sharpness in enumerate(SHARPNESS):
        lines = [line for line in found if line["sharpness"] == sharpness]
        right = fmean(line["right"] for line in lines if line["way"] == "robin")
        axes[0][column].set_title(f"judge right in {right:.0%} of all duels", fontsize=9)
        for row, end in enumerate(("best", "worst")):
            axis = axes[row][column]
            for name, colour in colours.items():
                if end == "worst" and "loser" in name:
                    continue
                own = [line for line in lines if line["way"] == name]
                axis.plot(
                    [line["comparisons"] for line in own], [line[end] for line in own],
                    marker="o", markersize=3.5, linewidth=1.4, color=colour, label=name,
                )  # fmt: skip
            axis.set(xscale="log", ylim=(0, 1))
            axis.grid(alpha=0.25, linewidth=0.6)
        axes[1][column].set_xlabel("comparisons a prompt")
    for row, end in enumerate(("best", "worst")):
        axes[row][0].set_ylabel(f"share of prompts whose\n{end} answer is found")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=len(WAYS), frameon=False)
    figure.suptitle("Points along a line: 2, 4, 8, 16, 32 answers a prompt", fontsize=9.5)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
