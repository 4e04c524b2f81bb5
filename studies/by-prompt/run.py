"""What ``sampler=by_prompt`` does to learning: the same pairs, each seen once, in another order.

    python studies/by-prompt/run.py run      2 seeds x {shuffle, by_prompt} x {4, 16} pairs a step; it goes on
    python studies/by-prompt/run.py table    Markdown of all results

dpo with lora on qa_feedback's human preferences: four answers a question, up to six pairs. Both samplers see all pairs
of the same questions once and end; the held-out questions are others. Only the order differs, and so what meets in a
step.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from grainline.data import files
from grainline.places import cache_dir

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _records import Records, beside, estimate, minus  # noqa: E402

RECORDS = Records(HERE)
DATA = HERE.parents[2] / "shared" / "data" / "qa_feedback"
QUESTIONS = {"train": 30, "test": 37}
"""Of 340 and of 74."""
COMMON: dict[str, Any] = {
    "model": {"name": "smollm2-135m-instruct", "dtype": "bfloat16"},
    "objective": "dpo",
    "adapter": "lora:rank=16",
    "optimizer": "adamw:lr=3e-4",
    "epochs": 1,
    "max_tokens": 2048,
}
SAMPLERS = ("shuffle", "by_prompt")
SIZES = (4, 16)


def runs() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what identifies a run, its recipe): everything with one seed before the next."""
    data = {"data": some_questions("train"), "held_out": some_questions("test")}
    for seed in range(2):
        for size in SIZES:
            for sampler in SAMPLERS:
                key = {"study": f"{size} pairs a step", "method": sampler, "seed": seed}
                yield key, COMMON | data | {"batch_size": size, "sampler": sampler}


def some_questions(part: str) -> str:
    """A file of all pairs of some questions."""
    rows = [dict(row.row) for row in files.rows(str(DATA / f"prefs_{part}.jsonl.gz"), split=part)[1]]
    asked = set(random.Random(0).sample(sorted({row["group"] for row in rows}), QUESTIONS[part]))
    file = cache_dir() / "studies" / "by-prompt" / f"{part}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows if row["group"] in asked))
    return str(file)


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
