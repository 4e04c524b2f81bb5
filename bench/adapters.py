"""What does an adapter cost? Forward and backward of one training step beside PEFT's LoRA r=16, in one process.

    python bench/adapters.py sara ropo ropo:granularity=pairs    any adapter texts; lora:rank=16 is added as the measure
    python bench/adapters.py ropo --model tiny                   does the benchmark itself still work?

All sides share the frozen weights of SmolLM2-135M and see the same rows, in turn, step by step, so that a busy machine
slows all alike: only the ratios are worth remembering. Memory is the peak of a process of its own for each side.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import _machine
import torch

from grainline import cpu, models, rooms
from grainline.adapters import _seam

MEASURE = "lora:rank=16"


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print(peak(options, options.peak_of))
        return
    texts = list(dict.fromkeys([MEASURE, *options.adapters]))
    sides = timed(options, texts)
    for text in texts if not options.no_memory else ():
        sides[text]["peak_mib"] = in_child(text)
        print(f"{text}: {sides[text]['peak_mib']:.0f} MiB", file=sys.stderr, flush=True)
    print(table(options, sides))
    if options.json:
        facts = {"machine": _machine.facts(torch.device("cpu")), "settings": vars(options) | {"json": None}}
        options.json.write_text(json.dumps(facts | {"sides": sides}, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="+", metavar="ADAPTER", help="as in a recipe, e.g. sara:share=0.1")
    add, count = parser.add_argument, {"type": int, "metavar": "N"}
    add("--model", choices=["smollm2", "tiny"], default="smollm2")
    add("--rows", default=4, **count, help="rows of a step (default 4)")
    add("--length", default=256, **count, help="tokens of a row (default 256)")
    add("--steps", default=5, **count, help="timed steps (default 5)")
    add("--threads", default=2, **count, help="of torch (default 2)")
    add("--no-memory", action="store_true", help="leave out the memory runs")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--peak-of", help=argparse.SUPPRESS)  # what a child is asked
    return parser.parse_args()


def timed(options: argparse.Namespace, texts: list[str]) -> dict[str, dict[str, Any]]:
    base, ids = world(options)
    made = {text: attached(base, text) for text in texts}
    for model, _ in made.values():
        step(model, ids)  # warms up
    seconds: dict[str, list[float]] = {text: [] for text in texts}
    for i in range(options.steps):
        turn = i % len(texts)  # each side goes first in its turn
        for text in texts[turn:] + texts[:turn]:
            seconds[text].append(step(made[text][0], ids))
        print(f"step {i + 1} of {options.steps}", file=sys.stderr, flush=True)
    first = seconds[texts[0]]
    return {
        text: {
            "seconds": median(own),
            "ratio": sum(own) / sum(first),
            "ratio_median": median(a / b for a, b in zip(own, first, strict=True)),
            "attach_seconds": made[text][1],
            "parameters": sum(p.numel() for p in made[text][0].parameters() if p.requires_grad),
            "steps": own,
        }
        for text, own in seconds.items()
    }


def world(options: argparse.Namespace) -> tuple[Any, torch.Tensor]:
    """The frozen base, and the tokens of the rows."""
    if options.model == "smollm2":
        base = models.load(models.Choice("smollm2-135m-instruct", dtype="float32", device="cpu")).model
    else:
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128}
        base = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **sizes))
    torch.manual_seed(0)
    return base.requires_grad_(False), torch.randint(base.config.vocab_size, (options.rows, options.length))


def attached(base: Any, text: str) -> tuple[Any, float]:
    """The adapter on a copy that shares the frozen weights, and the seconds that attaching took."""
    shared = {id(tensor): tensor for tensor in base.parameters()}
    model, began = copy.deepcopy(base, shared), time.perf_counter()
    torch.manual_seed(0)
    return _seam.attach(rooms.parse("adapters", text), model).train(), time.perf_counter() - began


def step(model: Any, ids: torch.Tensor) -> float:
    began = time.perf_counter()
    with cpu.full_width():  # as in training, and for every side
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    seconds = time.perf_counter() - began
    model.zero_grad()
    return seconds


def peak(options: argparse.Namespace, text: str) -> float:
    """MiB at the peak of this process above what the model itself takes, over two steps."""
    base, ids = world(options)
    model, _ = attached(base, text)
    _machine.reset_peak(ids.device)
    for _ in range(2):
        step(model, ids)
    return _machine.peak_mib(ids.device)


def in_child(text: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", text]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def table(options: argparse.Namespace, sides: dict[str, dict[str, Any]]) -> str:
    first = next(iter(sides.values()))
    lines = [
        f"{options.model}, float32, {options.rows} rows of {options.length} tokens, {options.steps} steps, "
        f"{options.threads} threads; LoRA = 1.00",
        "",
        f"{'':44}{'s/step':>8}{'time':>7}{'median':>8}{'MiB':>7}{'memory':>8}{'parameters':>12}{'attach s':>10}",
    ]
    for text, side in sides.items():
        memory = [side.get("peak_mib", float("nan")), side.get("peak_mib", float("nan")) / first.get("peak_mib", 1.0)]
        lines.append(
            f"{text:44}{side['seconds']:8.2f}{side['ratio']:7.2f}{side['ratio_median']:8.2f}"
            f"{memory[0]:7.0f}{memory[1]:8.2f}{side['parameters']:12,d}{side['attach_seconds']:10.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from grainline.errors import UserError

    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
