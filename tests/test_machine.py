"""The machine: what files of Linux say of it, written by hand; and rates that are rates."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from grainline import machine


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_features_on_intel_and_arm(tmp_path: Path) -> None:
    intel = write(tmp_path / "intel", "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 amx_bf16\n")
    arm = write(tmp_path / "arm", "processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert machine.cpu_flags(intel) == {"fpu", "avx2", "amx_bf16"}
    assert machine.cpu_flags(arm) == {"fp", "asimd", "bf16"}
    assert machine.cpu_flags(tmp_path / "nowhere") == set()


def test_memory(tmp_path: Path) -> None:
    file = write(tmp_path / "meminfo", "MemTotal:  2000 kB\nMemFree:  5 kB\nMemAvailable:  1000 kB\n\nHugePages: 0\n")
    assert machine.memory(file) == (2000 * 1024, 1000 * 1024)
    assert machine.memory(tmp_path / "nowhere") is None


CGROUPS = {
    "v2, the group's own": ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/b/memory.max": "1000"}, 1.5, 1000),
    "v2, the parent's is tighter": (
        "0::/a/b\n",
        {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"},
        0.5,
        math.inf,
    ),
    "v1": (
        "3:cpu,cpuacct:/a\n4:memory:/a\n0::/\n",
        {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "300000",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "4096",
        },
        3.0,
        4096,
    ),
    "v1 without a limit": (
        "3:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        math.inf,
        math.inf,
    ),
    "none": ("", {}, math.inf, math.inf),
}


@pytest.mark.parametrize("case", CGROUPS)
def test_limits_of_a_container(case: str, tmp_path: Path) -> None:
    groups, files, share, memory = CGROUPS[case]
    own = write(tmp_path / "own", groups)
    for name, text in files.items():
        write(tmp_path / "fs" / name, text + "\n")
    assert machine.cpu_share(tmp_path / "fs", own) == share
    assert machine.memory_limit(tmp_path / "fs", own) == memory


def test_a_rate_is_the_amount_over_the_best_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second at each look: the best time is one second, so the rate is the count itself."""
    ticks = iter(range(1000))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: float(next(ticks)))
    assert machine._rate(lambda: None, amount=7, seconds=10.0, wait=lambda: None) == 7.0


def test_all_kinds_are_measured(one_thread: None) -> None:
    rates = machine.measure(seconds=0.01)
    kinds = ("linear", "attention", "step")
    assert list(rates) == [f"{kind} {dtype}" for dtype in ("float32", "bfloat16") for kind in kinds]
    assert all(0 < rate < 1e7 for rate in rates.values())
