"""Asking transformers for a model or a tokenizer: strictly, without waiting for a network that is not there, and with
errors that say what to do.

transformers starts a missing weight at random and only logs it; here it is an error. A model read from GGUF carries a
mark by which it cannot be saved again and PEFT takes it for quantised; it is handed out without.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grainline.errors import ModelError

_REFUSALS = (OSError, ValueError, ImportError, LookupError, TypeError, AttributeError)
"""What transformers raises over names and files it cannot use; the last two over JSON of another form."""

# peft 0.21 asks transformers 5 for a name that goes away in 6, on every attach; users can do nothing about it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


KINDS = {"AutoModelForCausalLM": "causal language model", "AutoModelForSequenceClassification": "classifier"}
"""transformers' classes that are asked here, and what a user calls what they load."""


def model(
    path: str, options: Mapping[str, Any], *, name: str, gguf: str | None = None, kind: str = "AutoModelForCausalLM"
) -> Any:
    """The causal language model in folder or hub id ``path``, from its file ``gguf`` if there is one.

    Args:
        path: What ``from_pretrained`` takes.
        options: Further arguments of ``from_pretrained``.
        name: What the user called it, for messages.
        gguf: A file name inside ``path``.
        kind: One of :data:`KINDS`, if it is another model than that.

    Raises:
        ModelError: nothing there, no safetensors, no causal language model, code of its own, or missing weights.
    """
    found, report = _ask(kind, path, {**options, "output_loading_info": True}, name, gguf)
    if report["missing_keys"]:
        raise ModelError(
            f"{len(report['missing_keys'])} weights are not in its files, e.g. {min(report['missing_keys'])}.",
            where=f"model {name}",
            instead=f"Is it a {KINDS[kind]}, and does config.json belong to these weights?",
        )
    return found if gguf is None else _unmarked(found)


def tokenizer(path: str, options: Mapping[str, Any], *, name: str, gguf: str | None = None) -> Any:
    """The tokenizer beside a model; arguments and errors as for :func:`model`."""
    return _ask("AutoTokenizer", path, options, name, gguf)


def empty(path: str, options: Mapping[str, Any], *, name: str, gguf: str | None = None) -> Any:
    """The architecture of :func:`model` on torch's meta device, without a weight; ``options``: of ``from_config``."""
    import torch
    from transformers import AutoModelForCausalLM

    hub = {key: value for key, value in options.items() if key in ("revision", "trust_remote_code")}
    config = _ask("AutoConfig", path, hub, name, gguf)
    made = {key: value for key, value in options.items() if key != "revision"}
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, **made)
    except _REFUSALS as error:
        raise _explained(error, f"model {name}") from error


def _ask(kind: str, path: str, options: Mapping[str, Any], name: str, gguf: str | None) -> Any:
    import transformers
    from safetensors import SafetensorError

    asked = dict(options)
    if gguf is not None:
        missing = [package for package in ("gguf", "sentencepiece") if importlib.util.find_spec(package) is None]
        if missing:
            raise ModelError(
                f"reading GGUF needs {' and '.join(missing)}.",
                where=f"model {name}",
                instead="pip install 'grainline[gguf]'.",
            )
        asked.pop("use_safetensors", None)
        asked["gguf_file"] = gguf
    if not Path(path).exists() and _offline():
        # Straight to the hub's cache: without this a missing network costs 45 seconds of retries.
        asked["local_files_only"] = True
    try:
        with _without_bars():
            return getattr(transformers, kind).from_pretrained(path, **asked)
    except (*_REFUSALS, SafetensorError) as error:
        raise _explained(error, f"model {name}") from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers draws a bar for each load; a run says in a line of its own what it has loaded."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _unmarked(marked: Any) -> Any:
    """The same weights without the mark of GGUF: marked, a model cannot be saved, and PEFT takes it for quantised."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    config = type(marked.config).from_dict(
        {k: v for k, v in marked.config.to_dict().items() if k not in ("quantization_config", "_model_name_or_path")}
    )
    fresh = AutoModelForCausalLM.from_config(
        config, dtype=marked.dtype, attn_implementation=marked.config._attn_implementation
    )
    with torch.no_grad():
        fresh.load_state_dict(marked.state_dict())
    fresh.generation_config = GenerationConfig.from_dict(marked.generation_config.to_dict())
    return fresh


def _offline() -> bool:
    """True when the hub's host has no address and no proxy is set that could know one."""
    host = urllib.parse.urlparse(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        return not urllib.request.getproxies() and not socket.getaddrinfo(host, 443)
    except OSError:
        return True


def _explained(error: Exception, where: str) -> ModelError:
    """transformers' exception in three parts: what, where, instead."""
    said = str(error).strip()
    first = said.partition("\n")[0]
    if "trust_remote_code" in said:
        return ModelError(
            "it comes with Python code of its own, which was not run.",
            where=where,
            instead="Read that code, then set trust_remote_code=true.",
        )
    if "safetensors" in said and isinstance(error, OSError):
        return ModelError(
            f"no safetensors weights ({first})",
            where=where,
            instead="Pickled weights are not read; look for a converted revision.",
        )
    if "Unrecognized" in said:
        return ModelError(f"not a causal language model that transformers knows ({first})", where=where)
    if "valid JSON" in said:
        return ModelError(first, where=where, instead="Give a folder that holds a model, or a hub id.")
    if isinstance(error, OSError):
        return ModelError(
            f"not found: {first}",
            where=where,
            instead="Check the id. Without a network, give a folder or an alias; smollm2-135m-instruct is one.",
        )
    return ModelError(f"cannot be loaded: {first}", where=where)
