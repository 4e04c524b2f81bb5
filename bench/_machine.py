"""What the machine says: seconds, other people's CPU, peak memory, names and versions. Linux's /proc, or honest NaN."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

NAN = float("nan")


class Taken(NamedTuple):
    """What one stretch of work took."""

    seconds: float
    cpu: float  # CPU seconds of this process, all threads: less moved by neighbours than the wall's
    others: float  # cores that other processes kept busy meanwhile; above 0.2 the timing is disturbed


class Clock:
    """``clock = Clock(device); ...; clock.read() -> Taken``"""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        _wait(device)
        self.busy, self.cpu, self.began = _busy_seconds(), time.process_time(), time.perf_counter()

    def read(self) -> Taken:
        _wait(self.device)
        seconds = time.perf_counter() - self.began
        cpu = time.process_time() - self.cpu
        return Taken(seconds, cpu, (_busy_seconds() - self.busy - cpu) / seconds)


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far: from here on :func:`peak_mib` speaks of what follows only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: torch.device) -> float:
    """Peak of the device's allocator on CUDA, else of the process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return _field("/proc/self/status", "VmHWM", NAN, lambda text: int(text.split()[0]) / 1024)


def facts(device: torch.device) -> dict[str, Any]:
    """The machine and the software, for the record."""
    processor = _field("/proc/cpuinfo", "model name", platform.processor(), str)
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    packages = ("grainline", "torch", "transformers", "peft", "trl", "accelerate")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used since it was started."""
    try:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    except OSError:
        return NAN
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _field(file: str, key: str, missing: Any, read: Any) -> Any:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return missing
    return next((read(line.partition(":")[2].strip()) for line in lines if line.startswith(key)), missing)
