"""How many rows a second does curation carry, and in how much memory? Beside `datasets` and datatrove.

    python bench/curation.py --rows 1000000                     ours alone: some minutes
    python bench/curation.py --rows 100000 --sides ours,datasets
    python bench/curation.py --rows 100000 --sides ours,datasets,datatrove --datatrove ENV/lib/python3.11/site-packages

A synthetic file of pairs (about 1.1 kB a row, five sentences an answer) goes through ``segment`` and ``filter``. All
sides call the same two functions of ours for each row, so what differs is what carries the rows: journals of JSON lines
(ours), Arrow tables (datasets: ``map``, ``filter``, ``to_json``), documents of a pipeline in one process (datatrove).
Each side is a process of its own; its seconds begin when all is imported, its peak is that of its resident memory. The
files they write must hold the same rows.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STEPS = ("segment", "filter:shortest=100,balance=1.6")
SIDES = ("ours", "datasets", "datatrove")


def main() -> None:
    options = parse()
    if options.one:
        print(json.dumps(one(options.one, Path(options.folder), options.datatrove)))
        return
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder) / "pairs.jsonl", options.rows)
        print(f"{options.rows:,} rows, {size / 1e6:.0f} MB; steps {', '.join(STEPS)}; {os.cpu_count()} cores\n")
        print("| side | version | rows/s | seconds | CPU seconds | peak memory | rows left | the same rows |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        first = None
        for side in options.sides.split(","):
            found = started(side, folder, options.datatrove)
            first = first or found["digest"]
            more = (found["peak"] - found["before"]) / 1e6
            print(
                f"| {side} | {found['version']} | {options.rows / found['seconds']:,.0f} | {found['seconds']:.1f} "
                f"| {found['cpu']:.1f} | {found['peak'] / 1e6:,.0f} MB (+{more:,.0f}) "
                f"| {found['rows']:,} | {'yes' if found['digest'] == first else 'NO'} |",
                flush=True,
            )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sides", default="ours", help="some of ours,datasets,datatrove")
    parser.add_argument("--datatrove", default="", metavar="FOLDER", help="packages of an environment that has it")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def started(side: str, folder: str, datatrove: str) -> dict[str, Any]:
    """One side in a process of its own."""
    words = [sys.executable, __file__, "--one", side, "--folder", folder, "--datatrove", datatrove]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write(file: Path, rows: int) -> int:
    """Pairs of random words, the same for the same number of rows; bytes."""
    rng = random.Random(0)
    words = [f"word{n}" for n in range(5000)]
    sentences = [" ".join(rng.choices(words, k=12)).capitalize() + "." for _ in range(20_000)]
    with file.open("w", encoding="utf-8") as stream:
        for n in range(rows):
            asked = f"Why {n}? {rng.choice(sentences)}"
            chosen, rejected = (" ".join(rng.choices(sentences, k=rng.randint(3, 7))) for _ in range(2))
            stream.write(json.dumps({"id": str(n), "prompt": asked, "chosen": chosen, "rejected": rejected}) + "\n")
    return file.stat().st_size


def one(side: str, folder: Path, datatrove: str) -> dict[str, Any]:
    os.environ["GRAINLINE_CACHE"] = str(folder / "cache")
    carry, version = {"ours": ours, "datasets": hugging_face, "datatrove": trove}[side](folder, datatrove)
    before, cpu, began = peak(), time.process_time(), time.perf_counter()
    out = carry()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    digest, rows = hashlib.sha256(), 0
    highest = peak()
    with out.open(encoding="utf-8") as lines:
        for line in lines:
            rows += 1
            digest.update(json.dumps(json.loads(line), sort_keys=True).encode())
    found = {"version": version, "seconds": seconds, "cpu": cpu, "before": before, "peak": highest}
    return found | {"rows": rows, "digest": digest.hexdigest()}


def peak() -> int:
    """Bytes of resident memory, at the most so far; on Linux counted in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1000


def work() -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], Callable[[Mapping[str, Any]], bool]]:
    """What is done with each row: cut, and kept or not."""
    from grainline import rooms
    from grainline.curation._seam import signed

    segment, kept = (rooms.parse("curation", step) for step in STEPS)
    return lambda row: signed(segment._row(row), STEPS[0]), lambda row: not kept.against(row)


def ours(folder: Path, _: str) -> tuple[Callable[[], Path], str]:
    from grainline.curate import curate

    work()
    return lambda: curate(folder / "pairs.jsonl", STEPS, folder / "ours.jsonl").path, _version("grainline")


def hugging_face(folder: Path, _: str) -> tuple[Callable[[], Path], str]:
    import datasets

    cut, keep = work()

    def carry() -> Path:
        datasets.disable_progress_bars()
        rows = datasets.load_dataset(
            "json", data_files=str(folder / "pairs.jsonl"), split="train", cache_dir=str(folder / "arrow")
        )
        rows.map(cut).filter(keep).to_json(folder / "datasets.jsonl", force_ascii=False)
        return folder / "datasets.jsonl"

    return carry, _version("datasets")


def trove(folder: Path, packages: str) -> tuple[Callable[[], Path], str]:
    sys.path += [packages] if packages else []
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from loguru import logger

    logger.remove()
    cut, keep = work()

    class Cut(PipelineStep):
        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
            for document in data:
                document.metadata["row"] = cut(document.metadata["row"])
                yield document

    class Keep(PipelineStep):
        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
            return (document for document in data if keep(document.metadata["row"]))

    def read(self: Any, row: dict[str, Any], path: str, number: int) -> dict[str, Any]:
        return {"text": row["prompt"], "id": row["id"], "metadata": {"row": row}}

    def carry() -> Path:
        (folder / "in").mkdir()
        (folder / "in" / "pairs.jsonl").symlink_to(folder / "pairs.jsonl")

        def written(self: Any, document: Document) -> dict[str, Any]:
            return document.metadata["row"]

        steps = [
            JsonlReader(str(folder / "in"), adapter=read),
            Cut(),
            Keep(),
            JsonlWriter(str(folder / "trove"), output_filename="out.jsonl", compression=None, adapter=written),
        ]
        LocalPipelineExecutor(pipeline=steps, logging_dir=str(folder / "logs"), workers=-1).run()
        return folder / "trove" / "out.jsonl"

    return carry, _version("datatrove")


def _version(package: str) -> str:
    return importlib.metadata.version(package)


if __name__ == "__main__":
    main()
