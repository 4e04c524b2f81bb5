"""What ``sampler=by_prompt`` does to learning: the same pairs, each seen once, in another order.

    python studies/by-prompt/run.py run     2 labels x 2 seeds x {shuffle, by_prompt} x {4, 16} pairs a step; it goes on
    python studies/by-prompt/run.py table   Markdown of all results

dpo with lora on qa_feedback: four answers a question, up to six pairs. Both samplers see all pairs of the same
questions once and end; the held-out questions are others. Only the order differs, and so what meets in a step.

Preferred is the ``longer`` answer of each pair, which a small model can learn from a few questions, so that learning
less would be seen; and in the second half of the runs the one that people preferred (``human``), which it hardly can.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from grainline.places import cache_dir

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _records import Records, beside, estimate, minus  # noqa: E402
from _rows import preferences, write  # noqa: E402

RECORDS = Records(HERE)
MADE = cache_dir() / "studies" / "by-prompt"
QUESTIONS = {"train": 30, "test": 37}
"""Of 340 and of 74."""
LABELS = ("longer", "human")
COMMON: dict[str, Any] = {
    "model": {"name": "smollm2-135m-instruct", "dtype": "bfloat16"},
    "objective": "dpo",
    "adapter": "lora:rank=16",
    "epochs": 1,
    "max_tokens": 2048,
}
SAMPLERS = ("shuffle", "by_prompt")
RATES = {4: 3e-4, 16: 6e-4}
"""Pairs a step -> learning rate, which grows with their square root; the same for both samplers."""


def runs() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what identifies a run, its recipe): everything with one label and seed before the next."""
    for label, seed in itertools.product(LABELS, range(2)):
        data, held_out = (write(MADE / label / f"{part}.jsonl", rows(label, part)) for part in QUESTIONS)
        for (size, rate), sampler in itertools.product(RATES.items(), SAMPLERS):
            key = {"study": f"{label}, {size} pairs a step", "method": sampler, "seed": seed}
            order = {"batch_size": size, "sampler": sampler, "optimizer": f"adamw:lr={rate}"}
            yield key, COMMON | {"data": data, "held_out": held_out} | order


def rows(label: str, part: str) -> list[dict[str, Any]]:
    """The pairs of one part, the preferred answer as ``label`` has it; without a longer one a pair is left out."""
    found = preferences(part, QUESTIONS[part])
    if label == "human":
        return found
    longer = []
    for row in found:
        rejected, chosen = sorted((row["rejected"], row["chosen"]), key=len)
        if len(rejected) < len(chosen):
            longer.append(row | {"chosen": chosen, "rejected": rejected})
    return longer


def table(study: str) -> str:
    """Accuracy and margin beside ``shuffle``, and the processor's seconds of training."""
    found, spent = RECORDS.by_method(study), dict[str, list[float]]()
    margins = {
        method: estimate(minus(seeds, found["shuffle"], "rewards/margins"), seeds, "+.3f")
        for method, seeds in found.items()
    }
    for line in RECORDS.lines():
        if line["run"]["study"] == study:
            spent.setdefault(line["run"]["method"], []).append(line["seconds"])
    seconds = {method: f"{mean(each):.0f}" for method, each in spent.items()}
    return beside("shuffle", found, {"margin, minus shuffle": margins | {"shuffle": ""}, "seconds": seconds})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    if parser.parse_args().what == "run":
        RECORDS.carry_out(runs())
    for study in dict.fromkeys(line["run"]["study"] for line in RECORDS.lines()):
        print(f"\n{study}\n\n{table(study)}")


if __name__ == "__main__":
    main()
