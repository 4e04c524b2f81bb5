"""How long does a training step take, and how much memory? Grainline beside TRL's DPOTrainer, in one run.

    python bench/train_step.py                                SmolLM2-135M, float32: about ten minutes on two cores
    python bench/train_step.py --dtype bfloat16               TRL's bf16 autocast beside our bfloat16 weights
    python bench/train_step.py --data qa --sides packed,pair-trees,tree      several answers a question
    python bench/train_step.py --model tiny-4k                a random model of 7 million parameters; also tiny-49k
    python bench/train_step.py --model tiny                   does the benchmark itself still work?

Times are taken in one process, side by side and batch by batch, so that a busy machine slows all sides alike; memory is
taken in a process of its own for each side. Only the ratios are worth remembering. bench/README.md says what is fair.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

from _environment import with_peers
from _options import as_dict, names, parser

SIDES = ("trl", "trl-best", "tree", "cache", "pair-trees", "packed", "padded")
COLUMNS = {
    "s/step": ("seconds", ".2f", "mean"),
    "tok/s": ("tokens_a_second", ".0f", "real tokens; a prompt counts once for each answer"),
    "faster": ("speedup", ".2f", "ratio of sums to the first side"),
    "median": ("speedup_median", ".2f", "median of the steps' ratios"),
    "cpu": ("speedup_cpu", ".2f", "ratio of this process's CPU seconds: less disturbed by others, blind to idle cores"),
    "quiet": ("speedup_quiet", ".2f", "ratio of sums where others used at most 0.2 cores in both timings"),
    "MiB": ("peak_mib", ".0f", "peak of a process of its own"),
    "memory": ("memory", ".2f", "ratio of peaks"),
    "loss": ("loss_away", ".0e", "largest distance to the first side's; in bfloat16, to ours in float32"),
    "gradient": ("gradient_away", ".0e", "the same, relative L2 norm over all adapter weights"),
    "others": ("others", ".2f", "cores used by other processes, mean"),
}


def main() -> None:
    options = parse()
    if options.peak_of:
        print(peak(options, options.peak_of))
        return
    from _race import heading, say, table, write
    from _sides import SIDES as known

    peaks = {}  # first: this process will hold all models, and what memory they have once taken
    for name in options.sides if not options.no_memory else ():
        peaks[name] = in_child(name)
        say(f"{name}: {peaks[name]:.0f} MiB")
    result = timed(options)
    sides = result["sides"]
    for name, peak_mib in peaks.items():
        sides[name] |= {"peak_mib": peak_mib, "memory": peak_mib / peaks[options.sides[0]]}
    print("\n".join(heading(result)))
    print(table({name: known[name].title for name in sides}, sides, COLUMNS))
    print("quiet steps:", ", ".join(f"{side['quiet']} ({name})" for name, side in sides.items()))
    write(result, options.json)


def parse() -> argparse.Namespace:
    made = parser(__doc__, steps=8)
    made.add_argument(
        "--sides", default="trl,trl-best,tree,cache", type=names, help=f"of {', '.join(SIDES)}; the first is 1.00"
    )
    made.add_argument("--no-memory", action="store_true", help="leave out the memory runs")
    made.add_argument("--peak-of", help=argparse.SUPPRESS)  # what a child is asked
    options = made.parse_args()
    if unknown := [name for name in options.sides if name not in SIDES]:
        made.error(f"no side {unknown[0]}; there are {', '.join(SIDES)}")
    return options


def timed(options: argparse.Namespace) -> dict[str, Any]:
    """Every side's timings of every step, and how far its loss and gradient are from what is right."""
    import _machine
    from _race import compare, race
    from _rows import tokens
    from _sides import SIDES, Bench, Ours

    bench = Bench(options)
    sides = {name: bench.side(SIDES[name].how) for name in options.sides}
    exact = bench.ours(Ours(dtype="float32")) if options.dtype != "float32" else None
    rows = race(sides, options, device=bench.device, yardstick=exact)
    done = options.steps  # fewer after Ctrl-C
    counts = tokens(bench.rows.steps[:done]) | {"sorted": tokens(bench.rows.sorted[:done])["padded"]}
    compared = {name: compare(own, next(iter(rows.values())), counts["real"]) for name, own in rows.items()}
    facts = _machine.facts(bench.device)
    return {"settings": as_dict(options), "machine": facts, "tokens": counts, "sides": compared}


def peak(options: argparse.Namespace, name: str) -> float:
    """MiB at the peak of this process, with one side in it, over its largest timed step."""
    from _rows import tokens
    from _sides import SIDES, Bench, Peer, peak_of

    bench, how = Bench(options), SIDES[name].how
    steps = bench.rows.sorted if isinstance(how, Peer) and how.sorted else bench.rows.steps
    layout = "padded" if isinstance(how, Peer) else how.layout
    largest = max(range(len(steps)), key=lambda i: tokens([steps[i]])[layout])
    return peak_of(bench, bench.side(how), options.warm + largest)


def in_child(name: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", name]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


if __name__ == "__main__":
    with_peers()
    from grainline.errors import UserError

    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
