"""The doctor: healthy where the tests run, and each illness recognised where it is planted."""

from __future__ import annotations

import importlib.metadata
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from grainline import doctor, machine, provenance


def named(found: Any, about: str) -> doctor.Finding:
    (finding,) = [finding for finding in found if finding.about == about]
    return finding


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def test_here_nothing_is_broken_and_what_is_not_well_says_what_to_do() -> None:
    found = doctor.examine()
    assert not [finding for finding in found if finding.verdict == "fault"]
    assert all(finding.do for finding in found if finding.verdict != "ok")
    assert f"torch {torch.__version__}" in named(found, "versions").said


def test_nothing_is_written(home: Path) -> None:
    doctor.examine()
    assert not home.exists()


def test_a_version_that_is_too_old_or_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["torch>=99", "rich>=14.0", "gone-far-away>=1", "skipped>=1; extra == 'test'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    found = list(doctor.software())
    assert named(found, "torch").do == "pip install 'torch>=99'"
    assert named(found, "gone-far-away").said == "not installed"
    assert [finding.about for finding in found if finding.verdict == "fault"] == ["torch", "gone-far-away"]
    assert {finding.about for finding in doctor.examine()} == {"torch", "gone-far-away", "versions"}


@pytest.mark.parametrize(
    ("flags", "verdict"), [({"avx2", "amx_bf16"}, "ok"), ({"avx2", "avx512_bf16"}, "ok"), ({"avx2"}, "slow")]
)
def test_bfloat16_is_slow_without_instructions_for_it(
    flags: set[str], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
    assert named(doctor.processor(), "bfloat16").verdict == verdict


@pytest.mark.parametrize(
    ("cores", "share", "running", "do"),
    [
        (8, 2.0, 8, "set OMP_NUM_THREADS=2"),  # a container that may use two of eight cores
        (8, 8.0, 1, "set OMP_NUM_THREADS=8"),
        (8, 8.0, 8, ""),
        (4, 1.5, 2, ""),
    ],
)
def test_threads_beside_cores(cores: int, share: float, running: int, do: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "cpu_share", lambda: share)
    monkeypatch.setattr(torch, "get_num_threads", lambda: running)
    (finding,) = doctor.threads()
    assert (finding.do, finding.verdict) == (do, "slow" if do else "ok")


def test_little_memory_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: (64 * 2**30, 32 * 2**30))
    monkeypatch.setattr(machine, "memory_limit", lambda: 2**29)
    (finding,) = doctor.memory()
    assert finding.verdict == "slow"
    assert finding.said == "32.0 GiB of 64.0 GiB free; the container may use 512.0 MiB"


def test_caches_are_counted_and_what_is_broken_is_named(home: Path) -> None:
    good = home / "reference" / "some-model" / "good.safetensors"
    good.parent.mkdir(parents=True)
    tensors = {"keys": torch.zeros(3, 32, dtype=torch.uint8), "stops": torch.arange(3), "logprobs": torch.zeros(9)}
    save_file(tensors, good)
    broken = good.with_name("broken.safetensors")
    broken.write_bytes(good.read_bytes()[:40])
    (good.parent / ".new.safetensors.77").write_bytes(b"half")
    (home / "models" / "half").mkdir(parents=True)
    found = list(doctor.caches())
    assert named(found, "reference").said.startswith("log-probs of 3 answers in 1 folders, ")
    assert [finding.do for finding in found if finding.verdict == "fault"] == [
        f"rm -r {broken}",
        f"rm -r {home / 'models' / 'half'}",
    ]
    assert "1 left by interrupted writing, 4 B: .new.safetensors.77" in [finding.said for finding in found]


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "file" / "cache"))
    assert next(doctor.caches()).verdict == "fault"


def test_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    found = list(doctor.switches())
    assert named(found, "network").said == "HF_HUB_OFFLINE: nothing is downloaded"
    assert named(found, "tokenizer").verdict == "slow"
    assert named(found, "accelerate").verdict == "fault"


@pytest.mark.parametrize(
    ("bfloat16", "auto", "do"),
    [
        (310.0, "float32", "set model.dtype=bfloat16"),
        (20.0, "float32", ""),
        (110.0, "float32", ""),  # not worth the rounding
        (50.0, "bfloat16", "set model.dtype=float32"),
    ],
)
def test_which_dtype_to_choose(bfloat16: float, auto: str, do: str) -> None:
    """The step decides, whatever a linear layer gains."""
    rates = {f"{kind} {dtype}": 1.0 for kind in ("linear", "attention") for dtype in ("float32", "bfloat16")}
    rates |= {"step float32": 100.0, "step bfloat16": bfloat16, "linear bfloat16": 20.0}
    finding = named(doctor.judged(rates, auto=auto), "dtype")
    assert finding.do == do
    assert finding.said.startswith(f"bfloat16 is {bfloat16 / 100:.1f}x float32 here (20.0x in linear")


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libtorch.so: not found")

    monkeypatch.setattr(provenance, "gathered", broken)
    (finding,) = doctor.examine()
    assert (finding.about, finding.verdict) == ("torch", "fault")


def test_a_gpu_that_cannot_be_used_is_a_fault_and_the_next_one_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here; what torch would say of two is put into its mouth."""

    def free(n: int) -> tuple[int, int]:
        if n == 0:
            raise RuntimeError("CUDA error: device(s) is/are busy or unavailable\nCompile with ...")
        return 2**33, 2**34

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    monkeypatch.setattr(torch.cuda, "device", lambda n: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda n: "Some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    busy, well = doctor.devices()
    assert (busy.about, busy.verdict) == ("cuda:0", "fault")
    assert busy.said == "cannot be used: CUDA error: device(s) is/are busy or unavailable"
    assert (well.about, well.verdict) == ("cuda:1", "ok")
    assert "8.0 GiB of 16.0 GiB free, bfloat16 native" in well.said
