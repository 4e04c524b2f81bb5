r"""Fewer and larger operations for a decoder's small parts, with their derivatives written out; the same numbers.

Autograd keeps a tensor and makes a pass over memory for each elementary step of these formulas. Each function below
keeps what its derivative needs and no more, adds in place where nobody looks, and takes one product where several
share an input. All work on any leading shape and leave precision as the plain modules have it: norms in float32,
products in the dtype of the input. :mod:`~grainline.forward.fuse` puts them into a model and checks them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from grainline import gemm


class LowRank(NamedTuple):
    """A frozen linear layer with a low-rank change: y = W x + b + s B A x."""

    weight: Tensor  # (out, in), frozen
    bias: Tensor | None  # (out,), frozen
    down: Tensor  # A (r, in)
    up: Tensor  # B (out, r)
    scale: float  # s


def low_rank(x: Tensor, layers: Sequence[LowRank]) -> tuple[Tensor, ...]:
    r"""y_i = W_i x + b_i + s_i B_i A_i x for layers that read the same x (..., in): a tuple of (..., out_i).

    With g_i the gradient at y_i, and \bar g_i = s_i B_i' g_i,

        dx = sum_i W_i' g_i + A_i' \bar g_i,      dA_i = \bar g_i x',      dB_i = s_i g_i (A_i x)'

    All A x are one product, and so are all A' \bar g and all \bar g x'.
    """
    return _LowRank.apply(x, layers, *(layer.down for layer in layers), *(layer.up for layer in layers))


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Sequence[LowRank], *factors: Tensor) -> tuple[Tensor, ...]:
        down, up = factors[: len(layers)], factors[len(layers) :]
        x_NI = x.reshape(-1, x.shape[-1])
        down_RI = torch.cat(down).to(x.dtype)
        inner_NR = gemm.matmul(x_NI, down_RI.mT)
        outputs = []
        for layer, b, inner_Nr in zip(layers, up, _by_layer(inner_NR, layers), strict=True):
            y_NO = F.linear(x_NI, layer.weight, layer.bias)
            gemm.add_matmul(y_NO, inner_Nr, b.to(x.dtype).mT, layer.scale)
            outputs.append(y_NO.view(*x.shape[:-1], -1))
        ctx.save_for_backward(x_NI, inner_NR, down_RI, *up)
        ctx.layers, ctx.shape = layers, x.shape
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, inner_NR, down_RI, *up = ctx.saved_tensors
        grad_x: Tensor | None = None
        inner_grads, grad_up = [], []
        for layer, b, inner_Nr, grad in zip(ctx.layers, up, _by_layer(inner_NR, ctx.layers), grads, strict=True):
            g_NO = grad.reshape(-1, grad.shape[-1])
            inner_grads.append(gemm.matmul(g_NO, b.to(g_NO.dtype)).mul_(layer.scale))
            grad_up.append(gemm.matmul(g_NO.mT, inner_Nr).mul_(layer.scale).to(b.dtype))
            if ctx.needs_input_grad[0] and grad_x is None:
                grad_x = gemm.matmul(g_NO, layer.weight)
            elif grad_x is not None:
                gemm.add_matmul(grad_x, g_NO, layer.weight)
        inner_grad_NR = torch.cat(inner_grads, -1)
        grad_down = _by_layer(gemm.matmul(inner_grad_NR.mT, x_NI).to(up[0].dtype).mT, ctx.layers)
        if grad_x is not None:
            grad_x = gemm.add_matmul(grad_x, inner_grad_NR, down_RI).view(ctx.shape)
        return grad_x, None, *(part.mT for part in grad_down), *grad_up


def _by_layer(wide: Tensor, layers: Sequence[LowRank]) -> Sequence[Tensor]:
    """(..., sum of ranks) -> each layer's columns."""
    return wide.split([layer.down.shape[0] for layer in layers], -1)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    r"""y = w x / sqrt(mean(x^2) + eps) over the last axis of length H, w frozen; in float32, answered in x's dtype.

    With r = 1 / sqrt(mean(x^2) + eps) and g the gradient at y:  dx = r (w g) - x r^3 mean(w g x).
    """
    return _RMSNorm.apply(x, weight, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        wide = x.to(inverse.dtype)
        g = (grad * weight).to(inverse.dtype)
        pull = torch.linalg.vecdot(g, wide)[..., None].mul_(inverse**3).div_(x.shape[-1])
        return g.mul_(inverse).addcmul_(wide, pull, value=-1).to(x.dtype), None, None


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """y = f(gate) * up, f = ``silu`` or ``gelu_tanh``: keeps its two inputs, not f(gate)."""
    return _Gated.apply(gate, up, activation)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return _activate(gate, activation).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        if ctx.activation == "silu":
            grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        else:
            grad_gate = torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh")
        return grad_gate, _activate(gate, ctx.activation).mul_(grad), None


def _activate(gate: Tensor, activation: str) -> Tensor:
    return F.silu(gate) if activation == "silu" else F.gelu(gate, approximate="tanh")


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    r"""Rotary position embedding of q and k (..., d): x cos + (-x_2, x_1) sin, for halves x = (x_1, x_2).

    The derivative is the same rotation turned back: g cos + ((g sin)_2, -(g sin)_1).
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _Rotate.apply(q, cos, sin), _Rotate.apply(k, cos, sin)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        (x1, x2), (sin1, sin2) = x.chunk(2, -1), sin.chunk(2, -1)
        y = x * cos
        y1, y2 = y.chunk(2, -1)
        y1.addcmul_(x2, sin1, value=-1)
        y2.addcmul_(x1, sin2)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (g1, g2), (sin1, sin2) = grad.chunk(2, -1), sin.chunk(2, -1)
        back = grad * cos
        back1, back2 = back.chunk(2, -1)
        back1.addcmul_(g2, sin2)
        back2.addcmul_(g1, sin1, value=-1)
        return back, None, None
