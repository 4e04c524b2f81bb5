"""What the machine says: seconds, other people's CPU, peak memory, names and versions. Without Linux's /proc: NaN."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

NAN = float("nan")
PACKAGES = ("grainline", "torch", "transformers", "peft", "trl", "accelerate")


class Taken(NamedTuple):
    """What one stretch of work took."""

    seconds: float
    cpu: float  # CPU seconds of this process, all threads
    others: float  # cores that other processes kept busy meanwhile


class Clock:
    """Begins to count when it is made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        _wait(device)
        self.busy, self.cpu, self.began = _busy_seconds(), time.process_time(), time.perf_counter()

    def read(self) -> Taken:
        _wait(self.device)
        seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.cpu
        return Taken(seconds, cpu, (_busy_seconds() - self.busy - cpu) / seconds)


def reset_peak(device: torch.device) -> None:
    """From here on :func:`peak_mib` speaks of what follows only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: torch.device) -> float:
    """Peak of the device's allocator on CUDA, else of this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = _field("/proc/self/status", "VmHWM")
    return int(peak.split()[0]) / 1024 if peak else NAN


def facts(device: torch.device) -> dict[str, Any]:
    """The machine and the software, for the record."""
    cuda = device.type == "cuda"
    return {
        "processor": torch.cuda.get_device_name(device) if cuda else _field("/proc/cpuinfo", "model name"),
        "instructions": "" if cuda else instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def instructions() -> str:
    """The processor's instructions that decide how fast matrix products are: "avx512f avx512_bf16 amx_bf16"."""
    flags = _field("/proc/cpuinfo", "flags").split()
    return " ".join(name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _busy_seconds() -> float:
    """CPU seconds that the whole machine has worked since it was started."""
    if not Path("/proc/stat").exists():
        return NAN
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _field(file: str, key: str) -> str:
    """The value of the first line that begins with ``key``, or nothing."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
