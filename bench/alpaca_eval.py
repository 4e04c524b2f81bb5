"""How far are our length-controlled win rates from AlpacaEval 2's published ones?

    git clone https://github.com/tatsu-lab/alpaca_eval
    python bench/alpaca_eval.py alpaca_eval

Reads the annotations of its checkout (results/MODEL/weighted_alpaca_eval_gpt4_turbo) and the leaderboard beside them.
No model, no network. AlpacaEval's own rate knows each instruction's difficulty and how its judge takes to length; ours
knows the rows alone.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from grainline.evaluation.regression import length_controlled

ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
BOARD = f"src/alpaca_eval/leaderboards/data_AlpacaEval_2/{ANNOTATOR}_leaderboard.csv"


class Rates(NamedTuple):
    """Percent of wins."""

    raw: float
    raw_published: float
    controlled: float
    controlled_published: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of the repository")
    checkout = parser.parse_args().checkout
    with open(checkout / BOARD, encoding="utf-8") as file:
        board = {row[""]: row for row in csv.DictReader(file)}
    found = {}
    for path in sorted(checkout.glob(f"results/*/{ANNOTATOR}/annotations.json")):
        if (row := board.get(path.parts[-3])) and path.parts[-3] != "gpt4_1106_preview":  # the baseline itself
            found[path.parts[-3]] = rates(json.loads(path.read_text(encoding="utf-8")), row)
    if not found:
        raise SystemExit(f"{checkout}: no annotations in results/*/{ANNOTATOR}. Clone the whole repository.")
    print(f"{'':40}{'raw':>8}{'board':>8}{'ours':>8}{'board':>8}")
    for name, one in found.items():
        print(f"{name:40}" + "".join(f"{number:8.2f}" for number in one))
    apart = [abs(one.controlled - one.controlled_published) for one in found.values()]
    print(
        f"{len(found)} models; controlled rates apart: {mean(apart):.2f} in the mean, {max(apart):.2f} at most; ",
        end="",
    )
    print(f"raw rates: {max(abs(one.raw - one.raw_published) for one in found.values()):.3f} at most")


def rates(annotations: list[dict], row: dict[str, str]) -> Rates:
    """``preference`` is 1 where the baseline (output_1) won, 2 where the model did, 0 and 1.5 for ties."""
    kept = [one for one in annotations if one["preference"] is not None]
    won = [(one["preference"] or 1.5) - 1 for one in kept]
    ours = length_controlled(won, [len(one["output_2"]) - len(one["output_1"]) for one in kept])
    raw, controlled = float(row["win_rate"]), float(row["length_controlled_winrate"])
    return Rates(100 * mean(won), raw, 100 * ours.rate, controlled)


if __name__ == "__main__":
    main()
