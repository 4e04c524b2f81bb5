"""LoRA-GA's start: the gradient of each adapted weight, decomposed (see :mod:`grainline.adapters.lora`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from grainline.adapters._seam import Losses
from grainline.errors import ModelError

HELD = 2_000_000_000
"""Bytes of float32 gradients that are summed up at a time; what is more is read in further passes over the rows."""


def study(model: nn.Module, losses: Losses, gamma: float) -> None:
    """Set A and B of every adapted layer of ``model``, a fresh LoRA (B = 0), from the gradients of its frozen weights.

    While B = 0 the gradient of a frozen weight is that of the base. The base is not changed here: :func:`take_out`.

    Raises:
        ModelError: a layer is not linear or too small for the rank, or no gradient reaches it.
    """
    layers = _layers(model)
    for name, layer in layers.items():
        _check(name, layer)
    found = {
        name: factors(gradient_OI, layers[name].r["default"], gamma)
        for group in _groups(layers)
        for name, gradient_OI in _gradients(model, group, losses).items()
    }
    for name, (down_RI, up_OR) in found.items():  # last: a layer with its start would no longer be the base's
        layers[name].lora_A["default"].weight.data.copy_(down_RI)
        layers[name].lora_B["default"].weight.data.copy_(up_OR)


def take_out(model: nn.Module) -> None:
    """Take s B A of every adapted layer out of its frozen weight, so that the adapted model is the base."""
    _add(model, -1)


def restart(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """Exchange the start for the one in ``kept``: the base is put together again, and parted anew.

    Where both are the same nothing is touched. A randomised decomposition draws otherwise on another device, and A and
    B of a run that goes on would meet a base that was parted otherwise.
    """
    import peft

    own = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    if all(torch.equal(own[name].cpu(), tensor) for name, tensor in kept.items()):
        return
    _add(model, 1)
    peft.set_peft_model_state_dict(model, kept)
    _add(model, -1)


@torch.no_grad()
def _add(model: nn.Module, times: int) -> None:
    """Add s B A of every adapted layer to its frozen weight, so many times."""
    for layer in _layers(model).values():
        if "default" not in layer.lora_B:  # of an embedding nothing was taken out
            continue
        weight = layer.get_base_layer().weight
        up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        start_OI = layer.scaling["default"] * (up.float() @ down.float())
        weight.copy_(weight.float() + times * (start_OI.T if layer.fan_in_fan_out else start_OI))


def factors(gradient_OI: Tensor, rank: int, gamma: float) -> tuple[Tensor, Tensor]:
    """(A, B) of a gradient G = U S V': c V'[:r] and c U[:, r:2r], with c = outputs^(1/4) / sqrt(gamma)."""
    with torch.random.fork_rng([gradient_OI.device] if gradient_OI.is_cuda else []):
        torch.manual_seed(0)  # the same start each time; exact where 4 r directions are all there are
        U_OK, _, V_IK = torch.svd_lowrank(gradient_OI, q=min(4 * rank, *gradient_OI.shape), niter=4)
    size = gradient_OI.shape[0] ** 0.25 / gamma**0.5
    return size * V_IK[:, :rank].T, size * U_OK[:, rank : 2 * rank]


def _layers(model: nn.Module) -> dict[str, Any]:
    """Name -> LoRA layer."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _check(name: str, layer: Any) -> None:
    base = layer.get_base_layer()
    name = name.removeprefix("base_model.model.")
    if not (isinstance(base, nn.Linear) or type(base).__name__ == "Conv1D"):
        raise ModelError(
            f"init=lora_ga needs linear layers, and {name} is a {type(base).__name__}.",
            where="adapter: targets",
            instead="Leave it out.",
        )
    rank, smaller = layer.r["default"], min(base.weight.shape)
    if 2 * rank > smaller:
        raise ModelError(
            f"init=lora_ga takes 2 x {rank} directions, and {name} has {smaller}.",
            where="adapter: rank",
            instead=f"Set it to {smaller // 2} or less, there or in rank_pattern.",
        )


def _groups(layers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The layers in turn, as many at a time as their gradients may be held; at least one."""
    group: dict[str, Any] = {}
    held = 0
    for name, layer in layers.items():
        size = 4 * layer.get_base_layer().weight.numel()
        if group and held + size > HELD:
            yield group
            group, held = {}, 0
        group[name], held = layer, held + size
    yield group


def _gradients(model: nn.Module, layers: dict[str, Any], losses: Losses) -> dict[str, Tensor]:
    """Name -> (outputs, inputs) float32 gradient of the layer's frozen weight, summed over ``losses``."""
    weights = {name: layer.get_base_layer().weight for name, layer in layers.items()}
    sums: dict[str, Tensor] = {}

    def summing(name: str) -> Any:
        def hook(weight: Tensor) -> None:
            assert weight.grad is not None
            gradient = weight.grad.float()  # a sum in bfloat16 would round small rows away
            sums[name] = sums[name].add_(gradient) if name in sums else gradient
            weight.grad = None

        return hook

    with _training_only(model, list(weights.values())):
        hooks = [weight.register_post_accumulate_grad_hook(summing(name)) for name, weight in weights.items()]
        try:
            for loss in losses():
                loss.backward()
        finally:
            for hook in hooks:
                hook.remove()
    for name in layers:
        if name not in sums or not bool(0 < sums[name].norm() < torch.inf):
            said = "has no finite gradient other than 0 on these rows, so init=lora_ga finds no directions"
            raise ModelError(f"{name.removeprefix('base_model.model.')} {said}.", where="adapter: init")
    return {name: sums[name].T if layers[name].fan_in_fan_out else sums[name] for name in layers}


@contextmanager
def _training_only(model: nn.Module, chosen: list[Tensor]) -> Iterator[None]:
    before = [(tensor, tensor.requires_grad) for tensor in model.parameters()]
    model.requires_grad_(False)
    for tensor in chosen:
        tensor.requires_grad_(True)
    try:
        yield
    finally:
        for tensor, trains in before:
            tensor.requires_grad_(trains)
