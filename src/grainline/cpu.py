"""What torch and the C library are told before a model computes on a CPU: how much to keep for the next step."""

from __future__ import annotations

import ctypes
import os
import sys

KERNELS_KEPT = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""Variables that bound how many compiled kernels torch (ideep) and oneDNN keep, one a shape of a product: 1024 unless
told. Rows of many lengths fill them with 40 MB a step in bfloat16: twelve steps of SmolLM2-135M peak at 2217 MiB, with
64 at 1708, in the same time (16 take twice the time)."""

MEMORY_KEPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
"""glibc's variables and the numbers of their ``mallopt``. Unless told, large blocks and the end of the heap go back to
the system when they are freed, and each step takes them anew, page by page: 76,000 faults a step of
SmolLM2-135M, which is 8 to 11 % slower than with what this keeps."""

_NEVER = 2_000_000_000  # bytes; a block as large as this still comes from the system and goes back


def settle() -> None:
    """Bound the kernels that are kept, and keep freed memory; what the environment already says is left alone.

    To be called before the first product of the process and after the weights are read, so that what reading them took
    goes back. Memory is kept by glibc only; elsewhere nothing is done.
    """
    for variable in KERNELS_KEPT:
        os.environ.setdefault(variable, "64")
    if not sys.platform.startswith("linux") or any(variable in os.environ for variable in MEMORY_KEPT):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # none in musl
        for number in MEMORY_KEPT.values():
            mallopt(number, _NEVER)
