"""The machine underneath: what its processor can do, what a container may use of it, how fast it multiplies."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FEATURES = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx_vnni": "VNNI", "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16", "amx_int8": "AMX-INT8", "asimd": "NEON", "sve": "SVE", "bf16": "BF16",
}  # fmt: skip
"""What /proc/cpuinfo calls it -> what people call it."""


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_flags(file: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The processor's features as Linux names them; empty elsewhere."""
    lines = _lines(file)
    return next(
        (set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))), set()
    )


def vendor(file: Path = Path("/proc/cpuinfo")) -> str:
    """Who made the processor, as it says itself: ``GenuineIntel``, ``AuthenticAMD``; empty where Linux does not say."""
    return next((line.partition(":")[2].strip() for line in _lines(file) if line.startswith("vendor_id")), "")


def cpu_share(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Cores that a container may use, by cgroup v2 or v1; infinite without a limit."""
    shares = [math.inf]
    for folder in _groups(root, own, "cpu"):
        words = "".join(_lines(folder / "cpu.max")).split()
        words = words or [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():  # no limit: "max", or -1
            shares.append(int(words[0]) / int(words[1]))
    return min(shares)


def memory(file: Path = Path("/proc/meminfo")) -> tuple[int, int] | None:
    """Bytes of the machine in all, and free; None where Linux does not say."""
    known = {line.partition(":")[0]: line.split()[1] for line in _lines(file) if ":" in line}
    if "MemAvailable" not in known:
        return None
    return int(known["MemTotal"]) * 1024, int(known["MemAvailable"]) * 1024


def memory_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that a container may use; infinite without a limit."""
    lines = [_lines(f / name) for f in _groups(root, own, "memory") for name in ("memory.max", "memory.limit_in_bytes")]
    return min((float(line[0]) for line in lines if line and line[0].isdigit()), default=math.inf)


def measure(device: str = "cpu", *, seconds: float = 0.4) -> dict[str, float]:
    """Rates in float32 and bfloat16: ``linear`` (with the gradient of its input) and causal ``attention`` in GFLOP/s,
    and ``step``, forward and backward of a small frozen language model, in tokens a second."""
    import torch
    from torch.nn import functional as F

    tokens, width, heads = (512, 1024, 16) if device == "cpu" else (4096, 4096, 32)
    found: dict[str, float] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        x, w = (torch.randn(n, width, device=device).to(dtype) for n in (tokens, width))
        q = torch.randn(1, heads, tokens, 64, device=device).to(dtype)

        def layer(x: Any = x, w: Any = w) -> Any:
            return F.linear(x, w) @ w

        def attention(q: Any = q) -> Any:
            return F.scaled_dot_product_attention(q, q, q, is_causal=True)

        wait = _waiting(device)
        found[f"linear {name}"] = _rate(layer, 4e-9 * tokens * width * width, seconds, wait)
        found[f"attention {name}"] = _rate(attention, 2e-9 * heads * tokens * tokens * 64, seconds, wait)
        found[f"step {name}"] = _rate(_step(device, dtype, tokens), tokens, 3 * seconds, wait)
    return found


def _step(device: str, dtype: Any, tokens: int) -> Callable[[], Any]:
    """Forward and backward of two layers as wide as SmolLM2-135M's, with a third of its vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 576, "intermediate_size": 1536, "vocab_size": 16384, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=9, num_key_value_heads=3)
    model: Any = LlamaForCausalLM(config)
    model = model.to(device=device, dtype=dtype).requires_grad_(False)
    embeds = torch.randn(1, tokens, 576, device=device).to(dtype).requires_grad_()

    def step() -> None:
        logits = model(inputs_embeds=embeds, use_cache=False).logits
        logits.float().log_softmax(-1)[..., 0].sum().backward()

    return step


def _rate(work: Callable[[], Any], amount: float, seconds: float, wait: Callable[[], object]) -> float:
    """``amount`` a second: the best of many, because other programs can only slow it down."""
    work(), wait()
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work(), wait()
        best = min(best, time.perf_counter() - start)
    return amount / best


def _waiting(device: str) -> Callable[[], object]:
    """What waits until ``device`` has done all that it was told; a CPU never lags behind."""
    import torch

    kind = device.partition(":")[0]
    return torch.cuda.synchronize if kind == "cuda" else torch.mps.synchronize if kind == "mps" else lambda: None


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The cgroup folders of this process and all above it: v2 has one tree, v1 one for each controller."""
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", controller) or controller in controllers.split(","):
            top = root / controllers if controllers else root
            yield from (top / part for part in (Path(path).relative_to("/"), *Path(path).relative_to("/").parents))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
