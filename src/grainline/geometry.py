"""What training did to the weights, in four numbers; nothing here changes anything.

==================  ==================================================================================================
energy              hyperspherical energy of the neurons (rows), relative to before: how much more or less crowded
change              Frobenius norm of the change, relative to the weight's
angle               root mean square angle between each neuron and itself before, radians
spectrum            L2 distance of the singular values, relative to their norm before: 0 for a pure rotation
==================  ==================================================================================================

Liu et al. 2018, arXiv:1805.09298, with s = 1: HE(W) is the sum over pairs i != j of 1 / |w_i / |w_i| - w_j / |w_j||.
Letters in shapes: ``O`` neurons (outputs), ``I`` inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

KEYS = ("energy", "change", "angle", "spectrum")

_CHUNK = 256  # rows of a matrix of distances that are held at once


def hyperspherical_energy(weight_OI: Tensor, *, sample: int | None = None, seed: int = 0) -> float:
    """Sum over ordered pairs of distinct neurons of the inverse distance of their directions.

    Args:
        weight_OI: One neuron a row; a convolution's kernel may keep its axes. A row of zeros has no direction and is
            left out.
        sample: Take this many neurons at most, drawn with ``seed``, and scale up to all pairs.
        seed: The same draw for the same number of neurons, so that two weights can be compared.
    """
    rows = weight_OI.detach().flatten(1)
    if sample is not None and sample < len(rows):
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:sample].to(rows.device)]
    rows = rows.to(torch.float64 if rows.device.type == "cpu" else torch.float32)
    length = rows.norm(dim=1, keepdim=True)
    unit = (rows / length)[length.squeeze(1) > 0]
    # The matrix-product shortcut for distances cancels for close neurons, which count most.
    exact = "donot_use_mm_for_euclid_dist"
    total = 0.0
    for start in range(0, len(unit), _CHUNK):
        inverse = torch.cdist(unit[start : start + _CHUNK], unit, compute_mode=exact).reciprocal()
        own = torch.arange(len(inverse), device=inverse.device)
        inverse[own, start + own] = 0
        total += float(inverse.sum())
    pairs, seen = weight_OI.shape[0] * (weight_OI.shape[0] - 1), len(unit) * (len(unit) - 1)
    return total * pairs / seen if seen else 0.0


def relative_change(before_OI: Tensor, after_OI: Tensor) -> float:
    """Frobenius norm of the change over that of the weight before."""
    before, after = before_OI.detach().float(), after_OI.detach().float()
    return float((after - before).norm() / before.norm())


def rotation_angle(before_OI: Tensor, after_OI: Tensor) -> float:
    """Root mean square over neurons of the angle between before and after, radians."""
    before, after = (
        torch.nn.functional.normalize(w.detach().flatten(1).double(), dim=1) for w in (before_OI, after_OI)
    )
    half = (after - before).norm(dim=1) / 2  # of a chord; the arc cosine would lose small angles
    return float((2 * half.clamp(max=1).asin()).square().mean().sqrt())


def spectrum_moved(before_OI: Tensor, after_OI: Tensor) -> float:
    """L2 distance of the singular values, relative to their norm before."""
    before, after = (_singular_values(weight) for weight in (before_OI, after_OI))
    return float((after - before).norm() / before.norm())


def _singular_values(weight_OI: Tensor) -> Tensor:
    matrix = weight_OI.detach().flatten(1).double()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()


def changed_weights(
    model: Any, most: int | None = None, start: Mapping[str, Tensor] | None = None
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, weight before, weight after) of matrices that an adapter of PEFT's kind changes, in float32.

    ``most`` takes as many, evenly through the model. Each layer is merged on a copy of its own; nothing else changes.
    ``start``: the tensors of the fresh adapter by their names in the model, where its start was taken out of the base
    (PiSSA, OLoRA): the weight before is then the base with them.

    Raises:
        GrainlineError: of a tuner of ours, the reason why no single weight stands for the change.
    """
    layers = list(carriers(model).items())
    for name, layer in layers if most is None else _evenly(layers, most):
        within = f"base_model.model.{name}."
        fresh = {key.removeprefix(within): t for key, t in (start or {}).items() if key.startswith(within)}
        yield name, *before_and_after(layer, fresh)


def carriers(model: Any) -> dict[str, Any]:
    """The layers of ``model`` that an adapter of PEFT's kind changes, by name."""
    found = {name: module for name, module in model.named_modules() if _carries_an_adapter(module)}
    return {name.removeprefix("base_model.model."): module for name, module in found.items()}


def before_and_after(layer: Any, fresh: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """A layer's weight without its adapter (or with ``fresh`` tensors in it) and with it, in float32; it is merged on a
    copy."""
    before = _merged(layer, fresh) if fresh else _neurons(layer.get_base_layer()).float().clone()
    return before, _merged(layer)


def _merged(layer: Any, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
    """The weight with the adapter in it, or with these ``tensors`` in the adapter's place."""
    one = copy.deepcopy(layer).float()
    one.load_state_dict(tensors or {}, strict=False)
    one.merge()
    return _neurons(one.get_base_layer())


def monitor(
    model: Any, most: int = 12, sample: int = 256, start: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """The four numbers, each the mean over ``most`` changed matrices; empty where no adapter is merged by PEFT.

    Args:
        model: A PeftModel.
        most: Matrices that are looked at, evenly through the model.
        sample: Neurons of each whose distances are taken.
        start: As in :func:`changed_weights`.
    """
    found = [compared(before, after, sample) for _, before, after in changed_weights(model, most, start)]
    return {key: sum(one[key] for one in found) / len(found) for key in KEYS} if found else {}


def compared(before_OI: Tensor, after_OI: Tensor, sample: int = 256) -> dict[str, float]:
    """The four numbers of one matrix; distances are taken of ``sample`` neurons."""
    energy = hyperspherical_energy(before_OI, sample=sample)
    return {
        "energy": hyperspherical_energy(after_OI, sample=sample) / energy - 1,
        "change": relative_change(before_OI, after_OI),
        "angle": rotation_angle(before_OI, after_OI),
        "spectrum": spectrum_moved(before_OI, after_OI),
    }


def _neurons(module: Any) -> Tensor:
    """The weight, one neuron a row: GPT-2's Conv1D holds it transposed."""
    weight = module.weight.detach()
    return weight.T if type(module).__name__ == "Conv1D" else weight


def _carries_an_adapter(module: Any) -> bool:
    return "base_layer" in module._modules and hasattr(module, "merge") and hasattr(module, "get_base_layer")


def _evenly(items: list[Any], most: int) -> list[Any]:
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / max(most - 1, 1))] for i in range(most)]
