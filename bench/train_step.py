"""How long does a training step take, and how much memory? Grainline beside TRL's DPOTrainer, in one run.

    python bench/train_step.py                  SmolLM2-135M, float32, 8 steps: about ten minutes on two quiet cores
    python bench/train_step.py --model tiny     a tiny random model instead: does the benchmark itself still work?

Times are taken in one process, side by side and batch by batch, so that a busy machine slows all sides alike; memory is
taken in a process of its own for each side. Only the ratios are worth remembering. bench/README.md says what is fair.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import _machine

DISTURBED = 0.2  # cores used by others
Row = dict[str, float]  # one timing
COLUMNS = {
    "s/step": ("seconds", ".2f", "mean"),
    "tok/s": ("tokens_a_second", ".0f", "real tokens; a prompt counts once for each answer"),
    "faster": ("speedup", ".2f", "ratio of sums to the first side"),
    "median": ("speedup_median", ".2f", "median of the steps' ratios"),
    "quiet": ("speedup_quiet", ".2f", f"ratio of sums where others used at most {DISTURBED} cores in both timings"),
    "MiB": ("peak_mib", ".0f", "peak of a process of its own"),
    "memory": ("memory", ".2f", "ratio of peaks"),
    "loss": ("loss_away", ".0e", "largest distance to the first side's"),
    "gradient": ("gradient_away", ".0e", "the same, relative L2 norm over all adapter weights"),
    "others": ("others", ".2f", "cores used by other processes, mean"),
}


def main() -> None:
    options = parse()
    if importlib.util.find_spec("trl") is None:
        raise SystemExit("TRL is not installed: pip install trl==1.16.0 (or grainline[test]) into this environment.")
    if options.peak_of:
        print(peak(options, options.peak_of))
        return
    result = {"settings": vars(options) | {"json": None}, **timed(options)}
    sides = result["sides"]
    for name, side in sides.items() if not options.no_memory else ():
        side["peak_mib"] = in_child(name)
        side["memory"] = side["peak_mib"] / sides[options.sides[0]]["peak_mib"]
        say(f"{name}: {side['peak_mib']:.0f} MiB")
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, count = parser.add_argument, {"type": int, "metavar": "N"}
    add("--model", choices=["smollm2", "tiny"], default="smollm2")
    add("--steps", default=8, **count, help="timed steps (default 8)")
    add("--warm", default=1, **count, help="steps before them (default 1)")
    add("--threads", default=2, **count, help="of torch (default 2)")
    add("--device", default="cpu", help="cpu, cuda, mps or auto (default cpu)")
    add("--pairs", default=4, **count, help="pairs a step (default 4)")
    add("--max-length", default=512, **count, help="tokens of prompt and answer (default 512)")
    add("--max-tokens", default=4096, **count, help="tokens in one forward of Grainline's (default 4096)")
    add(
        "--sides", default="trl,tree,cache", type=lambda text: text.split(","), help="also packed, padded; first = 1.00"
    )
    add("--tries", default=2, **count, help="times a disturbed timing is taken at most (default 2)")
    add("--no-memory", action="store_true", help="leave out the memory runs")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--peak-of", help=argparse.SUPPRESS)  # what a child is asked
    return parser.parse_args()


def timed(options: argparse.Namespace) -> dict[str, Any]:
    """Every side's timings of every step, and how far its loss and gradient are from the first side's."""
    from _sides import Bench, take_gradient, tokens

    bench = Bench(options)
    sides = {name: bench.side(name) for name in options.sides}
    rows: dict[str, list[Row]] = {name: [] for name in sides}

    def step(name: str, examples: Sequence[Any]) -> tuple[Row, Any]:
        clock = _machine.Clock(bench.device)
        loss = sides[name](examples)
        row = clock.read()._asdict() | {"loss": loss}
        say(f"{name}: {row['seconds']:.2f} s, loss {loss:.6f}, others {row['others']:.2f} cores")
        return row, take_gradient(sides[name].model)

    for i, examples in enumerate(bench.steps):
        say(f"step {i - options.warm + 1} of {options.steps}" if i >= options.warm else "warm-up")
        turn = i % len(sides)  # each side goes first in its turn
        found = {name: step(name, examples) for name in options.sides[turn:] + options.sides[:turn]}
        if i < options.warm:
            continue
        first, gradient = found[options.sides[0]]
        for name, (row, own) in found.items():
            row["loss_away"] = abs(row["loss"] - first["loss"])
            row["gradient_away"] = float((own - gradient).norm() / gradient.norm())
            for _ in range(options.tries - 1):
                if row["others"] > DISTURBED:
                    row = min(row, row | step(name, examples)[0], key=lambda row: row["others"])
            rows[name].append(row)
    counts = tokens(bench.steps[options.warm :])
    compared = {name: compare(rows[name], rows[options.sides[0]], counts["real"]) for name in sides}
    return {"machine": _machine.facts(bench.device), "tokens": counts, "sides": compared}


def compare(rows: list[Row], first: list[Row], tokens: int) -> dict[str, Any]:
    """What a side's timings come to beside the first side's."""
    both = list(zip([row["seconds"] for row in first], [row["seconds"] for row in rows], strict=True))
    calm = [max(a["others"], b["others"]) <= DISTURBED for a, b in zip(first, rows, strict=True)]
    quiet = [pair for pair, is_calm in zip(both, calm, strict=True) if is_calm]

    def ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
        return sum(a for a, _ in pairs) / sum(b for _, b in pairs) if pairs else None

    return {
        "seconds": mean(own for _, own in both),
        "tokens_a_second": tokens / sum(own for _, own in both),
        "speedup": ratio(both),
        "speedup_median": median(a / b for a, b in both),
        "speedup_quiet": ratio(quiet),
        "quiet": len(quiet),
        "loss_away": max(row["loss_away"] for row in rows),
        "gradient_away": max(row["gradient_away"] for row in rows),
        "others": mean(row["others"] for row in rows),
        "steps": rows,
    }


def peak(options: argparse.Namespace, name: str) -> float:
    """MiB at the peak of this process, with one side in it, over its largest timed steps (padded, and as trees)."""
    from _sides import Bench, take_gradient, tokens

    bench = Bench(options)
    rest = bench.steps[options.warm :]
    largest = [max(rest, key=lambda step: tokens([step])[layout]) for layout in ("padded", "tree")]
    side = bench.side(name)
    for i, examples in enumerate([bench.steps[0], *largest]):
        if i == 1:
            _machine.reset_peak(bench.device)
        side(examples)
        take_gradient(side.model)
    return _machine.peak_mib(bench.device)


def in_child(name: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", name]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def table(result: dict[str, Any]) -> str:
    from _sides import SIDES

    settings, machine, sides = result["settings"], result["machine"], result["sides"]
    lines = [
        "",
        f"{settings['model']}, float32, LoRA r=16 on all linear layers, {settings['steps']} steps of "
        f"{settings['pairs']} pairs of at most {settings['max_length']} tokens",
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, trl {machine['trl']}",
        "tokens: " + ", ".join(f"{name} {count}" for name, count in result["tokens"].items()),
        "",
        " " * 28 + "".join(f"{head:>9}" for head in COLUMNS),
    ]
    for name, side in sides.items():
        cells = [(side.get(key), form) for key, form, _ in COLUMNS.values()]
        lines.append(f"{SIDES[name]:28}" + "".join(f"{'-' if v is None else format(v, form):>9}" for v, form in cells))
    quiet = ", ".join(f"{side['quiet']} ({name})" for name, side in sides.items())
    return "\n".join(
        [*lines, "", *(f"{head}: {said}" for head, (_, _, said) in COLUMNS.items()), f"quiet steps: {quiet}"]
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    from grainline.errors import UserError

    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
