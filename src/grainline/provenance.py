"""Where a run's numbers come from: versions, data, model, machine, choices. Written first, written whole."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from grainline import atomic

PACKAGES = (
    "grainline",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "sentencex",
    "rensa",
)


def gathered() -> dict[str, Any]:
    """Versions and hardware of this process."""
    import torch

    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "versions": versions(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def versions() -> dict[str, str]:
    """Of the packages that numbers stand on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def write(file: Path, facts: Mapping[str, Any]) -> None:
    """JSON, atomically."""
    atomic.text(file, json.dumps(facts, indent=1, default=str))


def digest(path: Path) -> str:
    """sha256 of what a file holds, or all files of a folder; empty for what is neither."""
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(map(sha256, found)).encode()).hexdigest() if found else ""


def digests(paths: Iterable[str | Path]) -> dict[str, str]:
    """path -> digest of those where something stands: a hub id, which may be given like a path, has none."""
    return {path: found for path in sorted(set(map(str, paths))) if (found := digest(Path(path).expanduser()))}


def read_by(methods: Any) -> dict[str, str]:
    """path -> digest of what decides ``methods`` beside their options: all that they, and the methods among their
    options, say they ``reads``, and the files of those that are the user's own."""
    return digests(_read(methods))


def _read(value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _read(part)
    elif dataclasses.is_dataclass(value):
        yield from getattr(value, "reads", ())
        own = getattr(sys.modules[type(value).__module__], "__grainline_path__", None)
        yield from [own] if own else ()
        yield from _read([getattr(value, field.name) for field in dataclasses.fields(value)])


def sha256(file: Path) -> str:
    """Of a file's bytes, which need not fit into memory."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> dotted keys with plain values, as trackers want them."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
