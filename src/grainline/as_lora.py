"""Any adapter that has weights to stand for it, as a plain PEFT LoRA: what vLLM, llama.cpp and other servers load.

What the adapter does to each linear layer is its merged weight minus the frozen one, whatever made it. Where every
change has a rank of ``rank`` at most the LoRA is that change, up to rounding; else it is the best of that rank,

.. math:: \\min_{B A} \\lVert \\Delta W - B A \\rVert_F \\quad (\\text{Eckart and Young}), \\qquad
          B = U_r \\sqrt{S_r},\\ A = \\sqrt{S_r} V_r^T,

and ``error`` says what is lost. All layers get the same rank and the scale 1, which every reader understands. No new
information is made: a change of full rank (Bone, an orthogonal map) is often served better by merged weights.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from grainline.errors import ModelError

EXACT = 1e-5
"""Relative error (Frobenius) below which the LoRA is the change: float32's rounding in a product of matrices."""
MOST = 64
"""The largest rank that is chosen unasked, unless twice the adapter's own rank makes it exact."""
_WHOLE = 1024
"""Matrices with fewer rows or columns are decomposed whole; of larger ones the leading part is found iteratively."""


class AsLora(NamedTuple):
    """A PEFT LoRA that does what another adapter does."""

    config: Any  # peft.LoraConfig
    tensors: dict[str, Tensor]  # as adapter_model.safetensors names them
    rank: int
    error: float  # of all layers together: ||change - B A|| / ||change||
    worst: tuple[str, float]  # the layer with the largest error of its own

    @property
    def exact(self) -> bool:
        return self.error <= EXACT

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded beside it."""
        named = {"worst_layer": self.worst[0], "worst_layer_error": self.worst[1]}
        return {"rank": self.rank, "exact": self.exact, "relative_error": self.error, **named}

    def save(self, folder: Path) -> None:
        """PEFT's two files."""
        from safetensors.torch import save_file

        self.config.save_pretrained(folder)
        save_file(self.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def as_lora(model: Any, rank: int | None = None) -> AsLora:
    """The active adapter of ``model``, a PeftModel, as a LoRA.

    Args:
        rank: of every layer; None: as small as is exact, else :data:`MOST`.

    Raises:
        ModelError: no weight stands for the adapter, or it changes more than the weights of linear layers.
    """
    check_mergeable(model)
    _check_only_layers(model)
    with torch.no_grad():
        held = rank or max(MOST, 2 * _own_rank(model))
        parts = {name: _Part.of(change(layer, name), held) for name, layer in _layers(model).items()}
    if not parts:
        raise ModelError("the adapter changes no layer.", where="export")
    if rank is None:
        needed = [part.needed for part in parts.values()]
        rank = MOST if None in needed else max(1, *(k or 0 for k in needed))
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        down, up = part.factors(rank)
        tensors |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    lost = {name: part.lost(rank) for name, part in parts.items()}
    whole = sum(part.size**2 for part in parts.values()) ** 0.5
    error = sum(value**2 for value in lost.values()) ** 0.5 / (whole or 1.0)
    each = {name: lost[name] / (part.size or 1.0) for name, part in parts.items()}
    worst = max(each, key=lambda name: each[name])
    return AsLora(_config(model, rank, list(parts)), tensors, rank, error, (worst, each[worst]))


def change(layer: Any, name: str) -> Tensor:
    """(outputs, inputs) float32: the merged weight of a PEFT layer minus its frozen one.

    Raises:
        ModelError: the layer is not linear, is quantised, cannot be merged, or its bias changes.
    """
    base = layer.get_base_layer()
    transposed = type(base).__name__ == "Conv1D"
    if not (isinstance(base, nn.Linear) or transposed):
        raise ModelError(
            f"{name} is a {type(base).__name__}; a LoRA for servers changes linear layers only.",
            where="export",
            instead="Export merged weights instead.",
        )
    if not base.weight.is_floating_point():
        raise ModelError(
            f"{name} is quantised: a merged weight would be rounded to a few bits.",
            where="export",
            instead="Load the base unquantised and attach the saved adapter.",
        )
    merged = copy.deepcopy(layer).double()  # a small change is lost in the rounding of a float32 sum
    before = copy.deepcopy(merged.get_base_layer())
    with merging():
        merged.merge()
    after = merged.get_base_layer()
    if before.bias is not None and not torch.equal(before.bias, after.bias):
        raise ModelError(
            f"the bias of {name} changes, and a LoRA has none.",
            where="export",
            instead="Export merged weights instead.",
        )
    difference = after.weight.data - before.weight.data
    return (difference.T if transposed else difference).float()


def check_mergeable(model: Any) -> None:
    """See that the adapter of ``model`` changes layers, so that weights can stand for it.

    Raises:
        ModelError: it adds to what the model reads, or the base is quantised.
    """
    if not hasattr(model.base_model, "merge_adapter"):
        kind = str(getattr(model.active_peft_config.peft_type, "value", model.active_peft_config.peft_type))
        raise ModelError(
            f"{kind} adds to what the model reads: no weights stand for it.",
            where="merge",
            instead="Ship the adapter itself.",
        )
    if getattr(model.get_base_model(), "is_quantized", False):
        raise ModelError(
            "the base is quantised: merging would round the change away.",
            where="merge",
            instead="Load the base unquantised, attach the saved adapter, and merge that.",
        )


@contextlib.contextmanager
def merging() -> Iterator[None]:
    """PEFT's refusals to merge, as errors of ours."""
    try:
        yield
    except ModelError:
        raise
    except (NotImplementedError, ValueError) as error:
        raise ModelError(f"PEFT cannot merge it: {str(error) or type(error).__name__}.", where="merge") from error


class _Part(NamedTuple):
    """The change of one layer, decomposed: singular values and vectors, as many as were asked for or found."""

    U_OK: Tensor
    S_K: Tensor
    V_IK: Tensor
    size: float  # Frobenius norm of the whole change
    rest: float  # of what the factors do not hold

    @classmethod
    def of(cls, change_OI: Tensor, rank: int) -> _Part:
        if min(change_OI.shape) <= _WHOLE:
            U, S, Vt = torch.linalg.svd(change_OI, full_matrices=False)
            V = Vt.T
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # the same file each time
                U, S, V = torch.svd_lowrank(change_OI, q=min(rank + 16, min(change_OI.shape)), niter=6)
        U, S, V = (part[..., :rank].contiguous() for part in (U, S, V))
        rest = float((change_OI - (U * S) @ V.T).norm())
        return cls(U, S, V, float(change_OI.norm()), rest)

    @property
    def needed(self) -> int | None:
        """The smallest rank that leaves out rounding alone; None if more would be needed than is held."""
        return next((k for k in range(len(self.S_K) + 1) if self.lost(k) <= 0.5 * EXACT * self.size), None)

    def lost(self, rank: int) -> float:
        """The Frobenius norm of what a rank leaves out."""
        return float((self.S_K[rank:].square().sum() + self.rest**2).sqrt())

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """(A, B), filled up with zeros."""
        root = self.S_K[:rank].sqrt()
        down = self.V_IK.new_zeros(rank, self.V_IK.shape[0])
        up = self.U_OK.new_zeros(self.U_OK.shape[0], rank)
        down[: len(root)] = (self.V_IK[:, :rank] * root).T
        up[:, : len(root)] = self.U_OK[:, :rank] * root
        return down, up


def _own_rank(model: Any) -> int:
    rank = getattr(model.active_peft_config, "r", 0)
    return rank if isinstance(rank, int) else 0


def _layers(model: Any) -> dict[str, Any]:
    """Name in the base model -> PEFT's layer with the active adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    inner = model.base_model.model
    return {name: module for name, module in inner.named_modules() if isinstance(module, BaseTunerLayer)}


def _check_only_layers(model: Any) -> None:
    """See that all the adapter stores is inside of its layers."""
    from peft.utils import AuxiliaryTrainingWrapper

    wholes = [name for name, module in model.named_modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    biased = getattr(model.active_peft_config, "bias", "none") != "none"
    if wholes or biased:
        what = f"{wholes[0].removeprefix('base_model.model.')} is trained whole" if wholes else "biases are trained"
        raise ModelError(f"{what}, and a LoRA cannot hold it.", where="export", instead="Export merged weights.")


def _config(model: Any, rank: int, names: list[str]) -> Any:
    import peft

    old = model.active_peft_config
    made = peft.LoraConfig(task_type=old.task_type, r=rank, lora_alpha=rank, target_modules=names, inference_mode=True)
    made.base_model_name_or_path, made.revision = old.base_model_name_or_path, old.revision
    return made
