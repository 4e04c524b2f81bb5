"""What does a divergence over the whole vocabulary cost a step? ``tdpo`` beside ``dpo``, the reference cached for both.

    python bench/divergence.py                  SmolLM2-135M, hh: about two minutes
    python bench/divergence.py --json FILE --dtype bfloat16

Both do the same rows in turn, step by step; ``tdpo`` has the reference's final hidden states at hand and takes its
logits, and KL, from them. Peaks are of a process of its own each, over its largest step. The target is a step at most
1.5 times as long, and a peak at most 1.1 times as high.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

from _options import as_dict, parser

COLUMNS = {
    "s/step": ("seconds", ".2f", "mean"),
    "longer": ("longer", ".2f", "ratio of sums of seconds to dpo's"),
    "MiB": ("peak_mib", ".0f", "peak of a process of its own"),
    "higher": ("higher", ".2f", "ratio of peaks to dpo's"),
    "others": ("others", ".2f", "cores used by other processes, mean"),
}


def main() -> None:
    options = parse()
    if options.peak_of:
        print(peak(options))
        return
    import _machine
    from _race import compare, heading, here, race, table, write
    from _rows import tokens
    from _sides import Bench

    bench = Bench(options)
    rows = race({name: here(bench.ours(how), bench.device) for name, how in sides().items()}, options)
    counts = tokens(bench.rows.steps[: options.steps])
    found = {name: compare(own, rows["dpo"], counts["real"]) for name, own in rows.items()}
    facts = _machine.facts(bench.device)
    for name, side in found.items():
        side["peak_mib"] = in_child(name)
        side["longer"], side["higher"] = 1 / side["speedup"], side["peak_mib"] / found["dpo"]["peak_mib"]
    result = {"settings": as_dict(options), "machine": facts, "tokens": counts, "sides": found}
    print("\n".join(heading(result)))
    print(table({name: name for name in found}, found, COLUMNS))
    write(result, options.json)


def parse() -> argparse.Namespace:
    made = parser(__doc__, steps=3)
    made.add_argument("--peak-of", help=argparse.SUPPRESS)  # what a child is asked
    return made.parse_args()


def sides() -> dict[str, Any]:
    from _sides import BETA, Ours

    from grainline.objectives.tdpo import TDPO

    return {"dpo": Ours(cached=True), "tdpo": Ours(cached=True, objective=TDPO(beta=BETA))}


def peak(options: argparse.Namespace) -> float:
    from _rows import tokens
    from _sides import Bench, peak_of

    bench = Bench(options)
    largest = max(range(options.steps), key=lambda i: tokens([bench.rows.steps[i]])["tree"])
    return peak_of(bench, bench.ours(sides()[options.peak_of]), options.warm + largest)


def in_child(name: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", name]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
