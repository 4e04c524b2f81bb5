"""What is kept for the next step: few kernels, and freed memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from grainline import cpu

FAULTS = """
import resource, sys
from grainline import cpu
if sys.argv[1] == "settled":
    cpu.settle()
for _ in range(20):
    block = bytearray(64 << 20)  # larger than what glibc keeps by itself
    block[:: 4096] = bytes([1]) * len(block[:: 4096])
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def test_kernels_that_torch_keeps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user said otherwise; both libraries read these once, at the first product of a process."""
    first, second = cpu.KERNELS_KEPT
    monkeypatch.setenv(first, "7")
    monkeypatch.delenv(second, raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")  # this process is left as it is
    cpu.settle()
    assert (os.environ[first], os.environ[second]) == ("7", "64")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's memory is what is kept")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """64 MiB freed and taken again, twenty times: 16384 pages each, taken from the system once or every time."""

    def faults(how: str, **told: str) -> int:
        environment = {name: value for name, value in os.environ.items() if name not in cpu.MEMORY_KEPT} | told
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return int(done.stdout)

    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert faults("as it is") > 20 * pages
    assert faults("settled") < 4 * pages
    assert faults("settled", MALLOC_TRIM_THRESHOLD_="1000000") > 20 * pages  # the user's own word counts
