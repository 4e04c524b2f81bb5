"""Exact save and resume: everything a run would miss, in safetensors and JSON, written whole or not at all.

::

    checkpoints/step-000150/
        state.json            step, best metric, what the optimizer's groups are
        state.safetensors     trainable tensors, optimizer tensors, random state

No pickle is ever written or read. The order of rows and the learning rate are functions of the step and need no state.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grainline import atomic
from grainline.errors import RunError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def save(root: Path, step: int, model: nn.Module, optimizer: Optimizer, facts: dict[str, Any]) -> Path:
    """Write checkpoint ``step`` under ``root``; a crash at any moment leaves the older ones whole."""
    import torch
    from safetensors.torch import save_file

    tensors = {f"model.{name}": tensor.detach() for name, tensor in trainable(model)}
    numbers: dict[str, Any] = {}
    state = optimizer.state_dict()
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                numbers[f"{index}.{key}"] = value
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    described = {"step": step, "facts": facts, "groups": state["param_groups"], "numbers": numbers}
    folder = root / f"step-{step:06d}"
    with atomic.folder(folder) as temporary:
        save_file(
            {key: value.contiguous().cpu().clone() for key, value in tensors.items()}, temporary / "state.safetensors"
        )
        (temporary / "state.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    return folder


def restore(folder: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Put a checkpoint back, strictly; returns its facts and ``step``.

    Raises:
        RunError: unreadable, or its tensors are not this model's.
    """
    import torch
    from safetensors.torch import load_file

    try:
        described = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
    except Exception as error:
        raise RunError(f"unreadable checkpoint: {error}", where=str(folder), instead="Delete it and resume.") from error
    own = dict(trainable(model))
    saved = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    shapes, wanted = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (saved, own))
    if shapes != wanted:
        odd = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
        raise RunError(
            f"the checkpoint is of another adapter: {len(odd)} tensors differ, e.g. {odd[0]}", where=str(folder)
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    for key, value in described["numbers"].items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": described["groups"]})
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return {"step": described["step"], **described["facts"]}


def load_trainable(folder: Path, model: nn.Module) -> None:
    """Only the trained tensors of a checkpoint, e.g. of the best one."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "state.safetensors")
    with torch.no_grad():
        for name, tensor in trainable(model):
            tensor.copy_(tensors[f"model.{name}"])


def newest(root: Path) -> Path | None:
    """The newest whole checkpoint under ``root``."""
    return max(root.glob("step-[0-9]*"), default=None, key=_step)


def prune(root: Path, *, keep: int, spare: Iterable[Path | None] = ()) -> None:
    """Delete all but the ``keep`` newest checkpoints and those to ``spare``."""
    for folder in sorted(root.glob("step-[0-9]*"), key=_step)[:-keep]:
        if folder not in spare:
            shutil.rmtree(folder)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def trainable(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]


def append(file: Path, line: dict[str, Any]) -> None:
    """Append one JSON line and flush it."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def cut(file: Path, *, after: int) -> None:
    """Drop the lines of ``metrics.jsonl`` beyond step ``after``, and a last line that a crash left half written."""
    if not file.exists():
        return
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry.get("step", 0) <= after:
            lines.append(line)
    atomic.text(file, "".join(line + "\n" for line in lines))
