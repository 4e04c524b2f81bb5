"""The options that the step benchmarks share, read before anything heavy is imported."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def parser(doc: str | None, *, steps: int) -> argparse.ArgumentParser:
    """Model, data, dtype and the size of a step; ``steps`` are timed unless said otherwise."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, count = made.add_argument, {"type": int, "metavar": "N"}
    add("--model", choices=["smollm2", "tiny-4k", "tiny-49k", "tiny"], default="smollm2", help="default smollm2")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the frozen weights (default float32)")
    add("--data", choices=["hh", "qa"], default="hh", help="one pair a question, or several (default hh)")
    add("--steps", default=steps, **count, help=f"timed steps (default {steps})")
    add("--warm", default=1, **count, help="steps before them (default 1)")
    add("--threads", default=2, **count, help="of torch (default 2)")
    add("--device", default="cpu", help="cpu, cuda, mps or auto (default cpu)")
    add("--pairs", default=4, **count, help="pairs a step (default 4)")
    add("--questions", default=1, **count, help="questions a step, with --data qa (default 1)")
    add("--max-length", default=512, **count, help="tokens of prompt and answer (default 512)")
    add(
        "--max-tokens", default=1024, **count, help="tokens in one forward of Grainline's (default 1024, as a recipe's)"
    )
    add("--tries", default=2, **count, help="times a disturbed timing is taken at most (default 2)")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return made


def as_dict(options: Any) -> dict[str, Any]:
    """For the record."""
    return {key: value for key, value in vars(options).items() if key != "json" and not key.startswith("_")}


def names(text: str) -> list[str]:
    return text.split(",")
