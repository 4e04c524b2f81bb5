"""PEFT's two files of an adapter, read strictly: a file that is missing or damaged is named."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from grainline.errors import ModelError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def fingerprint(folder: str | Path) -> str:
    """sha256 of an adapter's configuration and weights.

    Raises:
        ModelError: one of them is not there.
    """
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        file = Path(folder) / name
        if not file.is_file():
            raise ModelError(f"no {name}.", where=str(folder), instead="Give the folder of a saved adapter.")
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_config(folder: Path) -> Any:
    """PEFT's configuration of the adapter in ``folder``.

    Raises:
        ModelError: there is none, or none that PEFT can read.
    """
    import peft

    if not (folder / CONFIG).is_file():
        raise ModelError(f"no {CONFIG}.", where=str(folder), instead="Give the folder of a saved adapter.")
    try:
        return peft.PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        what = f"unreadable ({type(error).__name__}: {error})."
        raise ModelError(what, where=str(folder / CONFIG), instead="Export it again.") from error


def read_tensors(folder: Path) -> dict[str, Any]:
    """The weights of the adapter in ``folder``.

    Raises:
        ModelError: there are none, or they cannot be read.
    """
    from safetensors.torch import load_file

    try:
        return load_file(folder / WEIGHTS)
    except Exception as error:
        raise ModelError(f"unreadable: {error}.", where=str(folder / WEIGHTS), instead="Export it again.") from error
