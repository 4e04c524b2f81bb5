"""How long does a training step take, and how much memory? Grainline beside TRL's DPOTrainer, in one run.

    python bench/train_step.py                                SmolLM2-135M, float32: about ten minutes on two cores
    python bench/train_step.py --dtype bfloat16               TRL's bf16 autocast beside our bfloat16 weights
    python bench/train_step.py --data qa --sides plain,packed,pair-trees,tree      several answers a question
    python bench/train_step.py --model tiny-4k                a random model of 7 million parameters; also tiny-49k
    python bench/train_step.py --model tiny                   does the benchmark itself still work?

TRL's sides have a process of their own, and so have ours. They take turns, batch by batch, so that a busy machine slows
all alike. Only the ratios are worth remembering. bench/README.md says what is fair.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from _environment import with_peers
from _options import as_dict, names, parser

SIDES = ("trl", "trl-best", "tree", "cache", "pair-trees", "packed", "padded", "plain")
COLUMNS = {
    "s/step": ("seconds", ".2f", "mean"),
    "tok/s": ("tokens_a_second", ".0f", "real tokens; a prompt counts once for each answer"),
    "faster": ("speedup", ".2f", "ratio of sums to the first side"),
    "median": ("speedup_median", ".2f", "median of the steps' ratios"),
    "cpu": ("speedup_cpu", ".2f", "ratio of this process's CPU seconds: less disturbed by others, blind to idle cores"),
    "quiet": ("speedup_quiet", ".2f", "ratio of sums where others used at most 0.2 cores in both timings"),
    "MiB": (
        "peak_mib",
        ".0f",
        "peak of its process (TRL's sides share one, ours another), the rows that warm up included",
    ),
    "memory": ("memory", ".2f", "ratio of peaks"),
    "loss": ("loss_away", ".0e", "largest distance to the first side's; in bfloat16, to ours in float32"),
    "gradient": ("gradient_away", ".0e", "the same, relative L2 norm over all adapter weights"),
    "others": ("others", ".2f", "cores used by other processes, mean"),
}


def main() -> None:
    options = parse()
    if options.serve:
        serving(options)
        return
    import _machine
    import torch
    from _race import heading, table, write
    from _sides import SIDES as known

    result = {"settings": as_dict(options), "machine": _machine.facts(torch.device(options.device)), **timed(options)}
    print("\n".join(heading(result)))
    print(table({name: known[name].title for name in result["sides"]}, result["sides"], COLUMNS))
    print("quiet steps:", ", ".join(f"{side['quiet']} ({name})" for name, side in result["sides"].items()))
    write(result, options.json)


def parse() -> argparse.Namespace:
    made = parser(__doc__, steps=8)
    made.add_argument(
        "--sides", default="trl,trl-best,tree,cache", type=names, help=f"of {', '.join(SIDES)}; the first is 1.00"
    )
    made.add_argument("--serve", type=names, help=argparse.SUPPRESS)  # what a child is asked
    options = made.parse_args()
    if unknown := [name for name in options.sides if name not in SIDES]:
        made.error(f"no side {unknown[0]}; there are {', '.join(SIDES)}")
    return options


def timed(options: argparse.Namespace) -> dict[str, Any]:
    """Every side's timings, and how far its loss and gradient are from what is right."""
    import _models
    from _race import compare, elsewhere, race
    from _rows import DATA, read, tokens
    from _sides import SIDES, Peer

    def served(names: list[str], *more: str) -> dict[str, Any]:
        return elsewhere([sys.executable, __file__, *sys.argv[1:], *more, "--serve", ",".join(names)], names)

    hows = {name: SIDES[name].how for name in options.sides}
    peers = [name for name, how in hows.items() if isinstance(how, Peer)]
    ours = [name for name in hows if name not in peers]
    runs = (served(peers) if peers else {}) | (served(ours) if ours else {})
    exact = served(["tree"], "--dtype", "float32")["tree"] if options.dtype != "float32" else None
    apart = [name for name in peers if hows[name].sorted]
    rows = race({name: runs[name] for name in hows}, options, apart=apart, yardstick=exact)
    steps = read(options, _models.tokenizer(options.model, DATA))
    done = options.steps  # fewer after Ctrl-C
    counts = tokens(steps.steps[:done]) | {"sorted": tokens(steps.sorted[:done])["padded"]}
    found = {name: compare(own, next(iter(rows.values())), counts["real"]) for name, own in rows.items()}
    for one in found.values():
        one["memory"] = one["peak_mib"] / next(iter(found.values()))["peak_mib"]
    return {"tokens": counts, "sides": found}


def serving(options: argparse.Namespace) -> None:
    """Sides in this process, as those run it who use it: what ours sets for its process is not set for TRL's."""
    from _race import here, serve
    from _sides import SIDES, Bench, Peer

    from grainline import cpu

    hows = {name: SIDES[name].how for name in options.serve}
    if any(isinstance(how, Peer) for how in hows.values()):
        cpu.settle = lambda: None
    bench = Bench(options)
    serve({name: here(bench.side(how), bench.device) for name, how in hows.items()})


if __name__ == "__main__":
    with_peers()
    from grainline.errors import UserError

    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
