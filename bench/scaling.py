"""How do time and memory of a step grow? One curve for each of prompt length, answers, adapters, size and processes.

    python bench/scaling.py --json bench/results/scaling.json      some minutes; scaling.png is drawn beside it
    python bench/scaling.py --curves prompt,answers
    python bench/scaling.py --draw bench/results/scaling.json      only draw

Random Llamas (8192 tokens), questions of exactly the lengths said, DPO with LoRA r=16 and the reference computed each
step. A curve varies one thing about a common point: 30 million parameters, 2 questions of 256 tokens, two answers of 64
each; processes are varied at 200 million. Each point is measured in processes of its own; memory is the peak of the
largest one, about 0.5 GB of which is Python and torch. Two processes of one thread have the same two cores as one
process of two threads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from _options import names

POINT = str(Path(__file__).with_name("_scaling_point.py"))
BOTH = [{"layout": "tree"}, {"layout": "packed"}]
SIZES = (10, 30, 100, 200, 500)
LAYOUTS = {"tree": "prompt once a question", "packed": "two sequences a pair"}

CURVES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "prompt": ("tokens of a prompt", [{"prompt": n, **way} for n in (128, 512, 2048) for way in BOTH]),
    "answers": ("answers a question", [{"answers": n, **way} for n in (2, 4, 8) for way in BOTH]),
    "adapters": ("adapted matrices a layer", [{"targets": n} for n in (1, 2, 4, 7)]),
    "size": ("million parameters", [{"size": n} for n in SIZES]),
    "processes": (
        "processes",
        [{"parallel": "none", "threads": 1, "size": 200}, {"parallel": "none", "size": 200}]
        + [{"parallel": kind, "threads": 1, "size": 200} for kind in ("ddp", "fsdp")],
    ),
}
AXES = {"prompt": "prompt", "answers": "answers", "adapters": "targets", "size": "size", "processes": "parallel"}
"""The field of a point that its curve varies."""


def main() -> None:
    options = parse()
    if options.draw:
        draw(json.loads(options.draw.read_text(encoding="utf-8")), options.draw.with_suffix(".png"))
        return
    import _machine
    import torch
    from _race import write

    result = {"machine": _machine.facts(torch.device("cpu")), "curves": {}}
    if options.json and options.json.exists():  # curves may be measured one at a time
        result["curves"] = json.loads(options.json.read_text(encoding="utf-8"))["curves"]
    for name in options.curves:
        print(f"\n{CURVES[name][0]}")
        result["curves"][name] = []
        for point in CURVES[name][1]:
            result["curves"][name].append(measured(point))
            write(result, options.json)  # what is done stays, whatever happens to the rest
    if options.json:
        draw(result, options.json.with_suffix(".png"))


def parse() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--curves", default=list(CURVES), type=names, help=f"of {', '.join(CURVES)}")
    made.add_argument("--json", type=Path, metavar="FILE", help="where results go, and a plot beside them")
    made.add_argument("--draw", type=Path, metavar="FILE", help="draw the results in FILE, measure nothing")
    return made.parse_args()


def measured(point: dict[str, Any]) -> dict[str, Any]:
    """One point, in processes of its own."""
    several = point.get("parallel", "none") != "none"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if several else []
    command = [sys.executable, *launcher, POINT, json.dumps(point)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()]
        found = {"failed": next((line for line in reversed(last) if "Error" in line), "no reason given")}
    else:
        found = json.loads(done.stdout.splitlines()[-1])
    print(", ".join(f"{key} {value}" for key, value in (point | found).items()), flush=True)
    return point | found


def draw(result: dict[str, Any], file: Path) -> None:
    """Time above, memory below, one column a curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = {name: rows for name, rows in result["curves"].items() if rows}
    figure, axes = pyplot.subplots(2, len(curves), figsize=(3.2 * len(curves), 5), squeeze=False)
    for column, (name, rows) in enumerate(curves.items()):
        rows = [row for row in rows if "seconds" in row]
        for line, (key, unit) in enumerate((("seconds", "seconds a step"), ("peak_mib", "peak MiB"))):
            panel = axes[line][column]
            if name == "processes":
                said = [f"{row['processes']} x {row.get('threads', 2)}\n{row['parallel']}" for row in rows]
                panel.bar(said, [row[key] for row in rows], width=0.6)
                panel.set_xlabel("processes x threads")
            else:
                curve(panel, rows, AXES[name], key)
                panel.set_xlabel(CURVES[name][0])
            panel.set_ylim(0, 1.1 * max(row[key] for row in rows))
            panel.set_ylabel(unit if column == 0 else "")
    axes[0][0].legend(frameon=False, fontsize=8)
    machine = result["machine"]
    figure.suptitle(
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, float32", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def curve(panel: Any, rows: list[dict[str, Any]], axis: str, key: str) -> None:
    for layout in dict.fromkeys(row.get("layout", "tree") for row in rows):
        own = [row for row in rows if row.get("layout", "tree") == layout]
        panel.plot([row[axis] for row in own], [row[key] for row in own], marker="o", label=LAYOUTS[layout])


if __name__ == "__main__":
    main()
