"""Where a run's numbers come from: versions, data, model, machine, choices. Written first, written whole."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping
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
