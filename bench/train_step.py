"""How long does a training step take, and how much memory? Grainline beside TRL's DPOTrainer, in one run.

    python bench/train_step.py                    SmolLM2-135M, float32, 8 steps: about ten minutes on two cores
    python bench/train_step.py --model tiny       the same with a tiny random model: does the benchmark still work?

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
from statistics import median
from typing import Any

import _machine

DISTURBED = 0.2  # cores used by others


def main() -> None:
    options = parse()
    if importlib.util.find_spec("trl") is None:
        raise SystemExit("TRL is not installed: pip install 'trl==1.16.0' (or grainline[test]) into this environment.")
    if options.peak_of:
        print(json.dumps(peak(options, options.peak_of)))
        return
    result = {"settings": vars(options) | {"json": None}, **timed(options)}
    if not options.no_memory:
        for name, side in result["sides"].items():
            side["peak_mib"] = in_child(name)
            say(f"memory {name}: {side['peak_mib']:.0f} MiB")
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["smollm2", "tiny"], default="smollm2")
    parser.add_argument("--steps", type=int, default=8, help="timed steps (default 8)")
    parser.add_argument("--warm", type=int, default=1, help="steps before them (default 1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, auto (default cpu)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs a step (default 4)")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of prompt and answer (default 512)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="tokens a forward of Grainline's (default 4096)")
    parser.add_argument("--sides", default="trl,tree,cache", help="of trl, tree, cache, packed, padded; first = 1.00")
    parser.add_argument("--tries", type=int, default=2, help="time a disturbed step up to so often (default 2)")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory runs out")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)  # this process measures one side's memory
    return parser.parse_args()


def timed(options: argparse.Namespace) -> dict[str, Any]:
    """Every side's seconds for every step, and how far its loss and gradient are from the first side's."""
    from _sides import Bench, take_gradient

    bench = Bench(options)
    sides = {name: bench.side(name) for name in options.sides.split(",")}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    first = next(iter(sides))

    def step(name: str, examples: Sequence[Any]) -> tuple[dict[str, float], Any]:
        clock = _machine.Clock(bench.device)
        loss = sides[name](examples)
        row = clock.read()._asdict() | {"loss": loss}
        say(f"{name}: {row['seconds']:.2f} s, loss {loss:.6f}, others {row['others']:.2f} cores")
        return row, take_gradient(sides[name].model)

    for i, examples in enumerate(bench.steps):
        say(f"step {i}{'' if i >= options.warm else ' (warming up)'}")
        found = {}
        for name in turned(list(sides), i):
            row, gradient = step(name, examples)
            for _ in range(options.tries - 1 if i >= options.warm else 0):
                if row["others"] > DISTURBED:
                    row = min(row, step(name, examples)[0], key=lambda row: row["others"])
            found[name] = (row, gradient)
        for name, (row, gradient) in found.items() if i >= options.warm else ():
            row["loss_away"] = abs(row["loss"] - found[first][0]["loss"])
            row["gradient_away"] = float((gradient - found[first][1]).norm() / found[first][1].norm())
            rows[name].append(row)
    return {
        "machine": _machine.facts(bench.device),
        "tokens": tokens(bench.steps[options.warm :]),
        "sides": {name: compared(rows[name], rows[first]) for name in sides},
    }


def turned(names: list[str], by: int) -> list[str]:
    """Each side goes first in its turn."""
    by %= len(names)
    return names[by:] + names[:by]


def tokens(steps: Sequence[Any]) -> dict[str, int]:
    """Tokens of the timed steps: what stands in the data, and what each layout puts through the model."""
    from grainline.data import collate

    real = sum(len(e.prompt) + len(a.ids) for examples in steps for e in examples for a in e.answers)
    answer = sum(len(a.ids) for examples in steps for e in examples for a in e.answers)
    laid = {name: sum(collate.tokens(examples, name) for examples in steps) for name in ("tree", "packed", "padded")}
    return {"real": real, "answer": answer, **laid}


def compared(rows: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, Any]:
    """What a side's timings come to, beside those of the first side at the same steps."""
    ratios = [b["seconds"] / row["seconds"] for b, row in zip(base, rows, strict=True)]
    quiet = [(b, row) for b, row in zip(base, rows, strict=True) if max(b["others"], row["others"]) <= DISTURBED]
    return {
        "seconds": ratio(rows, None, "seconds"),
        "speedup": ratio(base, rows, "seconds"),
        "speedup_median": median(ratios),
        "speedup_quiet": ratio(*zip(*quiet, strict=True), "seconds") if quiet else _machine.NAN,
        "speedup_cpu": ratio(base, rows, "cpu"),
        "loss_away": max(row["loss_away"] for row in rows),
        "gradient_away": max(row["gradient_away"] for row in rows),
        "others": sum(row["others"] for row in rows) / len(rows),
        "disturbed": sum(row["others"] > DISTURBED for row in rows),
        "steps": rows,
    }


def ratio(above: Sequence[dict[str, float]], below: Sequence[dict[str, float]] | None, key: str) -> float:
    """Sum over sum, or the mean of ``above`` alone."""
    return sum(row[key] for row in above) / (len(above) if below is None else sum(row[key] for row in below))


def peak(options: argparse.Namespace, name: str) -> float:
    """MiB at the peak of this process, one side alone in it, over the two largest timed steps (padded and as trees)."""
    from _sides import Bench, take_gradient

    from grainline.data import collate

    bench = Bench(options)
    timed = bench.steps[options.warm :]
    largest = [max(timed, key=lambda examples: collate.tokens(examples, layout)) for layout in ("padded", "tree")]
    side = bench.side(name)
    side(bench.steps[0])
    take_gradient(side.model)
    _machine.reset_peak(bench.device)
    for examples in largest:
        side(examples)
        take_gradient(side.model)
    return _machine.peak_mib(bench.device)


def in_child(name: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", name]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(said.splitlines()[-1])


def table(result: dict[str, Any]) -> str:
    from _sides import SIDES

    settings, machine, count = result["settings"], result["machine"], result["tokens"]
    sides = result["sides"]
    base = next(iter(sides.values()))
    lines = [
        "",
        f"{settings['model']}, float32, LoRA r=16 on all linear layers; {settings['steps']} steps of "
        f"{settings['pairs']} pairs, {settings['max_length']} tokens at most",
        f"{machine['processor']}, {machine['threads']} threads; trl {machine['trl']}, torch {machine['torch']}",
        f"tokens: {count['real']} real, of them {count['answer']} in answers; padded {count['padded']}, "
        f"packed {count['packed']}, trees {count['tree']}",
        "",
        f"{'':28}{'s/step':>8}{'tok/s':>8}{'faster':>8}{'median':>8}{'quiet':>8}{'MiB':>8}{'memory':>8}{'loss':>9}{'gradient':>9}"
        f"{'others':>8}",
    ]
    for name, side in sides.items():
        mib, share = side.get("peak_mib", _machine.NAN), side.get("peak_mib", _machine.NAN) / base.get("peak_mib", 1)
        speed = count["real"] / (side["seconds"] * settings["steps"])
        lines.append(
            f"{SIDES[name]:28}{side['seconds']:8.2f}{speed:8.0f}{side['speedup']:8.2f}{side['speedup_median']:8.2f}{side['speedup_quiet']:8.2f}"
            f"{mib:8.0f}{share:8.2f}{side['loss_away']:9.0e}{side['gradient_away']:9.0e}{side['others']:8.2f}"
        )
    disturbed = sum(side["disturbed"] for side in sides.values())
    lines += [
        "",
        "tok/s: real tokens, a prompt counted once an answer. faster: ratio of sums; median: of paired ratios;",
        f"quiet: ratio of sums over the steps in which others used at most {DISTURBED} cores on either side.",
        "loss, gradient: largest distance to the first side (gradient: relative L2). others: cores used by others;",
        f"{disturbed} of {len(sides) * settings['steps']} timings were disturbed by more than {DISTURBED} cores.",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
