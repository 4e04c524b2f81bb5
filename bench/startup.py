"""How long from ``grainline align`` to its first step? Beside the bare import of what it stands on.

    python bench/startup.py                     SmolLM2-135M, 64 rows: about two minutes

Each time is that of a new process, by the wall clock, from its start to a line that it writes; the first run of each
kind is thrown away: it fills the file system's cache, the folder of converted models and the reference cache. The two
kinds take turns. ``first step`` is its beginning: model, tokenizer and data read, layout probed, reference found.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from _options import as_dict

IMPORT = "import torch, transformers, peft; from transformers import AutoModelForCausalLM, AutoTokenizer"
MARKS = {"model read": "model:", "layout probed": "layout:", "first step": "adapter:", "first step done": "training 1/"}
"""What it is to have come so far, and how the line begins that says so."""


def main() -> None:
    options = parse()
    import _machine
    import torch
    from _race import write

    torch.set_num_threads(options.threads)
    found: dict[str, list[float]] = {}
    clock = _machine.Clock(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        rows = first_rows(Path(folder), options.rows)
        for turn in range(options.repeats + 1):
            once = {"bare import": imported(IMPORT)} | aligned(options, rows, Path(folder) / f"run-{turn}")
            print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in once.items()), file=sys.stderr, flush=True)
            for name, seconds in once.items() if turn else ():
                found.setdefault(name, []).append(seconds)
    middle = {name: median(seconds) for name, seconds in found.items()}
    facts = _machine.facts(torch.device("cpu"))
    print(f"\n{facts['processor']}, torch {facts['torch']}, grainline {facts['grainline']}; {options.rows} rows\n")
    for name, seconds in middle.items():
        print(f"{name:16} {seconds:6.2f} s   {seconds / middle['bare import']:.2f} times the bare import")
    result = {"settings": as_dict(options), "machine": facts, "seconds": found, "median": middle}
    write(result | {"busy": clock.read()._asdict()}, options.json)


def parse() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="smollm2-135m-instruct", help="name or folder (default smollm2-135m-instruct)")
    made.add_argument("--rows", default=64, type=int, metavar="N", help="training rows (default 64)")
    made.add_argument("--repeats", default=3, type=int, metavar="N", help="timed runs of each kind (default 3)")
    made.add_argument("--threads", default=2, type=int, metavar="N", help="of torch (default 2)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return made.parse_args()


def first_rows(folder: Path, count: int) -> Path:
    from _rows import FILES

    with gzip.open(FILES["hh"], "rt", encoding="utf-8") as lines:
        (folder / "rows.jsonl").write_text("".join(itertools.islice(lines, count)), encoding="utf-8")
    return folder / "rows.jsonl"


def imported(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began


def aligned(options: Any, rows: Path, out: Path) -> dict[str, float]:
    """Seconds from the start of ``grainline align`` to each of :data:`MARKS`."""
    words = [f"model={options.model}", f"data={rows}", f"out={out}"]
    words += ["steps=1", "batch_size=4", "max_length=512", "evaluation.samples=0", "model.device=cpu"]
    began, found, lines = time.perf_counter(), {}, []
    command = [sys.executable, "-m", "grainline", "align", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            lines.append(line)
            for name, mark in MARKS.items():
                if line.startswith(mark):
                    found.setdefault(name, time.perf_counter() - began)
    if process.returncode or found.keys() != MARKS.keys():
        raise SystemExit(f"grainline align did not come to its end:\n{''.join(lines)}")
    return found | {"process ended": time.perf_counter() - began}


if __name__ == "__main__":
    main()
