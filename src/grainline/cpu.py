"""What torch and the C library are told before a model computes on a CPU: how much to keep for the next step, and
which of torch's libraries multiplies."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from grainline import machine

KERNELS_KEPT = {"LRU_CACHE_CAPACITY": 64, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": 256}
"""Variables that bound how many compiled kernels torch (ideep) and oneDNN keep, one a shape of a product: 1024 unless
told, and rows of many lengths fill both. What oneDNN keeps must hold the shapes of one forward, since the next layer
has them again: a step of SmolLM2 of 4096 tokens takes 1.5 times as long with 64 (146 MiB less, and enough for 1024
tokens)."""

MEMORY_KEPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
"""glibc's variables and the numbers of their ``mallopt``. Unless told, large blocks and the end of the heap go back to
the system when they are freed, and each step takes them anew, page by page: 76,000 faults a step of
SmolLM2-135M, which is 8 to 11 % slower than with what this keeps."""

_NEVER = 2_000_000_000  # bytes; a block as large as this still comes from the system and goes back
_MOST = 2**25
"""Bytes: the largest block that older versions of glibc let a process keep. They refuse more, and as any word of these
two numbers ends glibc's own adapting, blocks of 128 KiB would come and go from then on."""


def settle() -> None:
    """Bound the kernels that are kept, and keep freed memory; what the environment already says is left alone.

    To be called before the first product of the process and after the weights are read, so that what reading them took
    goes back. Memory is kept by glibc only; elsewhere nothing is done.
    """
    for variable, kept in KERNELS_KEPT.items():
        os.environ.setdefault(variable, str(kept))
    if not sys.platform.startswith("linux") or any(variable in os.environ for variable in MEMORY_KEPT):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # none in musl
        for number in MEMORY_KEPT.values():
            _ = mallopt(number, _NEVER) or mallopt(number, _MOST)


@contextmanager
def full_width(when: bool = True) -> Iterator[None]:
    """Take torch's float32 products by oneDNN meanwhile where MKL is narrow, those of a backward inside too."""
    if when and mkl_is_narrow():
        with _by_onednn():
            yield
    else:
        yield


@functools.cache
def mkl_is_narrow() -> bool:
    """Whether this torch multiplies float32 with half of the vectors that this processor and torch's oneDNN have.

    MKL's AVX-512 kernels are for Intel's processors; oneDNN asks what a processor can do, not who made it. The answer
    follows from the processor and is not timed, so that a run that is resumed multiplies as it did before.
    """
    import torch

    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return wide and both and machine.vendor() == "AuthenticAMD" and _onednn_is_exact()


@contextmanager
def _by_onednn() -> Iterator[None]:
    """torch hands float32 to oneDNN only where it may be rounded to bfloat16 inside of a product. oneDNN makes use of
    that leave on processors with AMX, and multiplies by its float32 kernels elsewhere.

    The setting is the whole process's, and while it lasts ``torch.get_float32_matmul_precision`` raises, which torch's
    compiler for CUDA asks: so it is put back. One that the program has made is left alone.
    """
    import torch

    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if matmul.fp32_precision != "none":
        yield
        return
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = "none"


def _onednn_is_exact() -> bool:
    """Does x times one come back bit for bit? No format with fewer digits than float32's 24 could give it back."""
    import torch

    # Whatever the program's defaults are when this is first asked.
    plain: Any = {"dtype": torch.float32, "device": "cpu"}
    x, one = torch.linspace(1, 2, 512 * 512, **plain).view(512, 512), torch.eye(512, **plain)
    with torch.autocast("cpu", enabled=False), _by_onednn():
        return torch.equal(x @ one, x) and torch.equal(torch.bmm(x[None], one[None])[0], x)
