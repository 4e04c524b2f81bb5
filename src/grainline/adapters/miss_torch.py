"""PEFT's MiSS layer with another forward: the same numbers, with nothing of a layer's size beside its answer.

PEFT adds D' s (s the sum of shards) to the answer out of place, and autograd copies the gradient of s to the size of
the input before it adds it: tensors that are freed among others which stay, and the C library is told to keep such
holes. Here both sums are made in place.

Letters in shapes: ``T`` tokens, ``O`` outputs, ``I`` inputs, ``R`` a shard's width.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.miss.layer import MissLinear
from torch import Tensor, nn


def lean(model: nn.Module) -> None:
    """Make every MiSS layer of ``model`` a :class:`LeanMissLinear`; nothing but its forward changes."""
    for module in model.modules():
        if type(module) is MissLinear and module.miss_fn != "bat":
            module.__class__ = LeanMissLinear


class LeanMissLinear(MissLinear):
    """PEFT's layer; what is not the plain case of one active adapter on a frozen matrix is left to PEFT."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        active = [name for name in self.active_adapters if name in self.miss_block]
        layer: Any = self.get_base_layer()
        if self.disable_adapters or self.merged or len(active) != 1 or args or kwargs or not _plain(layer, x):
            return super().forward(x, *args, **kwargs)
        if not isinstance(self.miss_dropout[active[0]], nn.Identity):
            return super().forward(x)
        shared_RO = self.miss_block[active[0]]
        if shared_RO.shape[1] < layer.out_features:  # MiSS-mini
            shared_RO = shared_RO.repeat(1, layer.out_features // shared_RO.shape[1])
        y_TO = _Shared.apply(x.flatten(0, -2), layer.weight, layer.bias, shared_RO)
        return y_TO.view(*x.shape[:-1], -1)


def _plain(layer: Any, x: Tensor) -> bool:
    frozen = not any(tensor.requires_grad for tensor in layer.parameters())
    return type(layer) is nn.Linear and frozen and layer.weight.dtype == x.dtype


def shards(x_TI: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """(T, R): the sum of each row's shards; the last one may be narrower than the others."""
    left = x_TI.shape[-1] % width
    whole = x_TI.shape[-1] - left
    sum_TR = x_TI[:, :whole].unflatten(-1, (-1, width)).sum(1, dtype=dtype)
    sum_TR[:, :left] += x_TI[:, whole:]
    return sum_TR


def spread_(x_TI: Tensor, each_TR: Tensor) -> Tensor:
    """``x_TI`` with ``each_TR`` added to each of its shards, in place: the transpose of :func:`shards`."""
    width = each_TR.shape[-1]
    left = x_TI.shape[-1] % width
    whole = x_TI.shape[-1] - left
    x_TI[:, :whole].unflatten(-1, (-1, width)).add_(each_TR.unsqueeze(1))
    x_TI[:, whole:] += each_TR[:, :left]
    return x_TI


class _Shared(torch.autograd.Function):
    """W x + D' (sum of x's shards); keeps that sum, and of the frozen matrix' input nothing."""

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, shared_RO: Tensor) -> Tensor:
        sum_TR = shards(x_TI, len(shared_RO), shared_RO.dtype)
        ctx.save_for_backward(sum_TR, weight_OI, shared_RO)
        y_TO = nn.functional.linear(x_TI, weight_OI, bias_O)
        return y_TO.addmm_(sum_TR, shared_RO) if y_TO.dtype == sum_TR.dtype else y_TO.add_(sum_TR @ shared_RO)

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        sum_TR, weight_OI, shared_RO = ctx.saved_tensors
        fine_TO = grad_TO.to(shared_RO.dtype)
        shared_grad = sum_TR.T @ fine_TO if ctx.needs_input_grad[3] else None
        if not ctx.needs_input_grad[0]:
            return None, None, None, shared_grad
        return spread_(grad_TO @ weight_OI, fine_TO @ shared_RO.T), None, None, shared_grad
