"""How long does an optimizer step take? Ours beside torch's AdamW and the published packages, in one run.

    python bench/optimizers.py                    SmolLM2-135M's LoRA set and a set of many small vectors: a minute
    python bench/optimizers.py --device cuda

The published packages (adamp, pytorch-rad) are installed into an environment of their own under --peers, the first
time; where that fails they are left out, and the table says so. Sides take turns, step by step, so that a busy machine
slows all alike; only the ratios are worth remembering. bench/README.md says what is compared.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from grainline import rooms
from grainline.optimizers import _seam
from grainline.types import Tagged

PEERS = ("adamp==0.3.0", "pytorch-rad==0.2.1")
HIDDEN, INNER, KEYS, LAYERS, RANK = 576, 1536, 192, 30, 16  # SmolLM2-135M
LINEAR = [(HIDDEN, HIDDEN), (HIDDEN, KEYS), (HIDDEN, KEYS), (HIDDEN, HIDDEN)]
LINEAR += [(HIDDEN, INNER), (HIDDEN, INNER), (INNER, HIDDEN)]
SETS = {
    "lora": [shape for i, o in LINEAR * LAYERS for shape in ((RANK, i), (o, RANK))],
    # two rows of Givens angles, two Householder vectors and a magnitude for each linear layer
    "vectors": [shape for i, o in LINEAR * LAYERS for shape in ((i - 1,), (i - 1,), (2, i), (o,))],
}
FIRST = "torch AdamW, foreach"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    parser.add_argument("--steps", type=int, default=30, help="timed steps (default 30)")
    parser.add_argument("--warm", type=int, default=5, help="steps before them (default 5)")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "grainline" / "bench-optimizers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sides = dict(ours()) | published(options.peers)
    result = {}
    for name, shapes in SETS.items():
        times = timed(sides, shapes, options)
        result[name] = times
        print(f"\n{name}: {len(shapes)} tensors, {sum(map(math.prod, shapes)):,} numbers, {options.device}")
        print(f"{'':38}{'ms':>9}{'fastest':>9}{'ratio':>9}{'median':>9}")
        for side, row in times.items():
            first = times[FIRST]
            ratios = median(a / b for a, b in zip(row, first, strict=True))
            figures = (1e3 * median(row), 1e3 * min(row), min(row) / min(first), ratios)
            print(f"{side:38}" + "".join(f"{each:>9.2f}" for each in figures))
    print("\nms: median step. ratio: of the fastest steps. median: of the ratios of steps taken one after the other.")
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "seconds": result}) + "\n", encoding="utf-8")


Side = Callable[[list[Parameter]], Optimizer]


def ours() -> Iterator[tuple[str, Side]]:
    """torch's AdamW first, then this project's, all with their defaults."""
    for label, text in (
        (FIRST, "adamw:kernel=foreach"),
        ("torch AdamW, loop", "adamw:kernel=loop"),
        ("torch AdamW, fused", "adamw:kernel=fused"),
        ("adamp", "adamp"),
        ("adamp, all projected", "adamp:delta=1e9"),
        ("sgdp", "sgdp"),
        ("rad", "rad"),
        ("rad, no cap", "rad:zeta_cap=0"),
        ("rad, order 2", "rad:order=2"),
    ):
        spec = rooms.parse("optimizers", text)

        def make(parameters: list[Parameter], spec: Any = spec) -> Optimizer:
            tagged = [Tagged(f"{i:04}", parameter, "weight") for i, parameter in enumerate(parameters)]
            return _seam.build(spec, tagged, steps=1000)

        yield label, make


def published(folder: Path) -> dict[str, Side]:
    """The packages by the papers' authors."""
    try:
        sys.path.append(str(installed(folder)))
        theirs = importlib.import_module("adamp"), importlib.import_module("rad.optim.rad")
    except (subprocess.CalledProcessError, ImportError, OSError) as error:
        print(f"LEFT OUT: {', '.join(PEERS)} cannot be installed under {folder}: {error}", file=sys.stderr)
        return {}
    return {
        "published AdamP": lambda parameters: theirs[0].AdamP(parameters, lr=1e-4),
        "published AdamP, all projected": lambda parameters: theirs[0].AdamP(parameters, lr=1e-4, delta=1e9),
        "published SGDP": lambda parameters: theirs[0].SGDP(parameters, lr=1e-4, momentum=0.9),
        "published RAD": lambda parameters: theirs[1].RAD(parameters, lr=1e-4, zeta=None, max_iter=1000),
    }


def installed(folder: Path) -> Path:
    """Where the published packages lie; they need torch and numpy, which are ours."""
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    if not (packages / "adamp").is_dir() or not (packages / "rad").is_dir():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--no-deps", *PEERS], check=True)
    return packages


def timed(sides: dict[str, Side], shapes: list[tuple[int, ...]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each side's steps on its own copy of the tensors."""
    made = {name: side(tensors(shapes, options.device)) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for step in range(options.warm + options.steps):
        turn = step % len(names)
        for name in names[turn:] + names[:turn]:
            wait(options.device)
            began = time.perf_counter()
            made[name].step()
            wait(options.device)
            if step >= options.warm:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def tensors(shapes: list[tuple[int, ...]], device: str) -> list[Parameter]:
    random = torch.Generator().manual_seed(0)
    made = [Parameter(torch.randn(shape, generator=random).to(device)) for shape in shapes]
    for parameter in made:
        parameter.grad = 1e-3 * torch.randn(parameter.shape, generator=random).to(device)
    return made


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
