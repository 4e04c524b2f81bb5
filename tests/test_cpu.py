"""What is kept for the next step, and which library multiplies."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from _build import adapted, apart, model, questions
from _truth import pulled, scored
from grainline import cpu, machine
from grainline.forward import Scorer

MATMUL = torch.backends.mkldnn.matmul

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
    assert (os.environ[first], os.environ[second]) == ("7", "256")


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


def test_a_glibc_that_refuses_to_keep_so_much_keeps_the_most_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions refuse M_MMAP_THRESHOLD (-3) above HEAP_MAX_SIZE / 2 = 32 MiB, M_TRIM_THRESHOLD (-1) never."""
    kept: dict[int, int] = {}

    def mallopt(number: int, value: int) -> int:
        if number == -3 and value > 32 << 20:
            return 0
        kept[number] = value
        return 1

    for variable in (*cpu.MEMORY_KEPT, *cpu.KERNELS_KEPT):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr(cpu.os, "environ", {})
    cpu.settle()
    assert kept[-3] == 32 << 20
    assert kept[-1] > 1 << 30


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a processor where MKL is narrow, whatever this one is."""
    monkeypatch.setattr(cpu, "mkl_is_narrow", lambda: True)
    assert MATMUL.fp32_precision == "none"
    yield
    MATMUL.fp32_precision = "none"


def test_products_are_onednns_meanwhile_and_only_then(narrow: None) -> None:
    with cpu.full_width():
        assert MATMUL.fp32_precision == "bf16"
        with cpu.full_width():
            assert MATMUL.fp32_precision == "bf16"
        assert MATMUL.fp32_precision == "bf16"
        with cpu.full_width(when=False):
            assert MATMUL.fp32_precision == "bf16"
    assert MATMUL.fp32_precision == "none"
    with pytest.raises(RuntimeError), cpu.full_width():
        torch.ones(2, 3) @ torch.ones(2, 3)  # torch's own message
    assert MATMUL.fp32_precision == "none"
    with cpu.full_width(when=False):
        assert MATMUL.fp32_precision == "none"


def test_a_programs_own_choice_counts(narrow: None) -> None:
    MATMUL.fp32_precision = "ieee"
    with cpu.full_width():
        assert MATMUL.fp32_precision == "ieee"
    assert MATMUL.fp32_precision == "ieee"


def test_which_processors_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_onednn_is_exact", lambda: True)
    for maker, has, wanted in (
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX512_VNNI", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "DEFAULT", False),
    ):
        monkeypatch.setattr(machine, "vendor", lambda maker=maker: maker)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda has=has: has)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        assert cpu.mkl_is_narrow.__wrapped__() == wanted
        with monkeypatch.context() as rounding:  # as bfloat16 would inside of a product
            rounding.setattr(cpu, "_onednn_is_exact", lambda: False)
            assert not cpu.mkl_is_narrow.__wrapped__()
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
        assert not cpu.mkl_is_narrow.__wrapped__()


def test_digits_that_a_product_loses_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that rounds what it multiplies to bfloat16, or to 13 digits, does not give x back."""

    def rounded(x: torch.Tensor, digits: int) -> torch.Tensor:
        part, exponent = torch.frexp(x)
        return torch.ldexp((part * 2**digits).round() / 2**digits, exponent)

    own = torch.bmm
    for digits, exact in ((8, False), (13, False), (23, False), (24, True)):
        monkeypatch.setattr(torch, "bmm", lambda a, b, digits=digits: own(rounded(a, digits), b))
        monkeypatch.setattr(cpu, "_by_onednn", cpu.full_width)  # torch's own products
        monkeypatch.setattr(cpu, "mkl_is_narrow", lambda: False)
        assert cpu._onednn_is_exact() == exact


def test_who_asks_first_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is remembered: autocast, or a default device, must not be what it was found under."""
    monkeypatch.setattr(cpu, "_by_onednn", contextlib.nullcontext)  # torch's own products
    with torch.autocast("cpu", torch.bfloat16):
        assert cpu._onednn_is_exact()
    with torch.device("meta"):
        assert cpu._onednn_is_exact()


@pytest.mark.skipif(not cpu.mkl_is_narrow(), reason="this processor's MKL is as wide as it is")
@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "layers recomputed"])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_model_reads_and_learns_as_it_did(fused: bool, recomputed: bool) -> None:
    """Beside MKL's products: values and gradients, to rounding."""
    scorer = Scorer(adapted(model("llama")).train())
    if fused:
        scorer.fuse()
    if recomputed:
        scorer.causal.gradient_checkpointing_enable({"use_reentrant": False})
    with cpu.full_width():
        found = scored(scorer, questions(), "tree").token
        ours = pulled(scorer, found)
    MATMUL.fp32_precision = "ieee"
    try:
        truth = scored(scorer, questions(), "tree").token
        assert float((found - truth).detach().abs().max()) < 1e-5
        assert apart(ours, pulled(scorer, truth)) < 1e-5
    finally:
        MATMUL.fp32_precision = "none"
