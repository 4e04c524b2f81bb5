"""PEFT's Bat layer with another forward: the same numbers, without the changed weight being kept.

Letters in shapes: ``T`` tokens, ``O`` outputs, ``I`` inputs, ``R`` the block's size, ``A = O / R`` rows of blocks,
``C = I / R`` columns of blocks. A weight (O, I) seen as (A, R C, R) holds each row of each block as a row: no copy.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.miss.layer import MissLinear
from torch import Tensor, nn


def lean(model: nn.Module) -> None:
    """Make every Bat layer of ``model`` a :class:`LeanBatLinear`; nothing but its forward changes."""
    for module in model.modules():
        if type(module) is MissLinear and module.miss_fn == "bat":
            module.__class__ = LeanBatLinear


class LeanBatLinear(MissLinear):
    """PEFT's layer; what is not the plain case of one active adapter is left to PEFT."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        active = [name for name in self.active_adapters if name in self.miss_block]
        layer: Any = self.get_base_layer()
        plain = type(layer) is nn.Linear and not args and not kwargs
        if self.disable_adapters or self.merged or len(active) != 1 or not plain:
            return super().forward(x, *args, **kwargs)
        blocks_ARR = self.miss_block[active[0]]
        weight_OI, bias = layer.weight.to(blocks_ARR.dtype), layer.bias
        x_TI = x.to(blocks_ARR.dtype).flatten(0, -2)
        few = 2 * len(x_TI) < blocks_ARR.shape[-1]
        y_TO = factored(x_TI, weight_OI, blocks_ARR) if few else _Changed.apply(x_TI, weight_OI, blocks_ARR)
        y_TO = y_TO if bias is None else y_TO + bias.to(y_TO.dtype)
        return y_TO.view(*x.shape[:-1], -1).to(x.dtype)


def changed(weight_OI: Tensor, blocks_ARR: Tensor) -> Tensor:
    """(O, I): W + W B + B, block by block."""
    rows, size = blocks_ARR.shape[:2]
    new = torch.baddbmm(weight_OI.reshape(rows, -1, size), weight_OI.reshape(rows, -1, size), blocks_ARR)
    new.view(rows, size, -1, size).add_(blocks_ARR.unsqueeze(2))
    return new.view_as(weight_OI)


def factored(x_TI: Tensor, weight_OI: Tensor, blocks_ARR: Tensor) -> Tensor:
    """(T, O): x times :func:`changed`, which is not formed."""
    rows, size = blocks_ARR.shape[:2]
    x_TCR = x_TI.unflatten(-1, (-1, size))
    through_ATI = torch.einsum("ars,tcs->atcr", blocks_ARR, x_TCR).flatten(2) + x_TI
    y_ATR = through_ATI @ weight_OI.view(rows, size, -1).mT + x_TCR.sum(1) @ blocks_ARR.mT
    return y_ATR.transpose(0, 1).flatten(1)


class _Changed(torch.autograd.Function):
    """x times the changed weight; keeps x alone, and forms the weight again for the backward."""

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, weight_OI: Tensor, blocks_ARR: Tensor) -> Tensor:
        ctx.save_for_backward(x_TI, weight_OI, blocks_ARR)
        return x_TI @ changed(weight_OI, blocks_ARR).T

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x_TI, weight_OI, blocks_ARR = ctx.saved_tensors
        rows, size = blocks_ARR.shape[:2]
        x_grad = grad_TO @ changed(weight_OI, blocks_ARR) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[2]:
            return x_grad, None, None
        whole_OI = grad_TO.T @ x_TI
        by_row = whole_OI.view(rows, -1, size)
        added = whole_OI.view(rows, size, -1, size).sum(2)
        return x_grad, None, torch.baddbmm(added, weight_OI.reshape(rows, -1, size).mT, by_row)
