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

    All A x are one product, and so are all A' \bar g and all \bar g x'. An x that :func:`rms_norm` made is not kept:
    for dA it is made again, of what the norm keeps.
    """
    factors = (*(layer.down for layer in layers), *(layer.up for layer in layers))
    version, made = getattr(x, _MADE, (None, None))
    return _LowRank.apply(x, made if version == x._version else None, layers, *factors)


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, made: Sequence[Tensor] | None, layers: Sequence[LowRank], *factors: Tensor
    ) -> tuple[Tensor, ...]:
        outputs, kept = _read(x.reshape(-1, x.shape[-1]), layers, factors)
        source = (x,) if made is None else made
        ctx.save_for_backward(*source, *kept)
        ctx.layers, ctx.shape, ctx.of = layers, x.shape, len(source)
        return tuple(y_NO.view(*x.shape[:-1], -1) for y_NO in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        source, kept = ctx.saved_tensors[: ctx.of], ctx.saved_tensors[ctx.of :]
        pulled = _Pulled(ctx.layers, kept, grads)
        grad_x = pulled.by_input().view(ctx.shape) if ctx.needs_input_grad[0] else None
        (x,) = source if ctx.of == 1 else (_normed(*source),)
        return grad_x, None, None, *pulled.by_factors(x.reshape(-1, x.shape[-1]))


def _read(
    x_NI: Tensor, layers: Sequence[LowRank], factors: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The layers' (N, out_i), and what :class:`_Pulled` needs beside the input.

    With more tokens than inputs it is less work to add the change to the weight than to what each token gets. In
    bfloat16 a weight would round it away. There it comes first and the large product is added to it: a product adds in
    float32, so that the sum is rounded once, and SmolLM2's gradients are 0.048 from float32's, not 0.053.
    """
    down, up = factors[: len(layers)], factors[len(layers) :]
    down_RI = torch.cat(tuple(down)).to(x_NI.dtype)
    if x_NI.dtype in (torch.float32, torch.float64) and x_NI.shape[0] >= x_NI.shape[1]:
        return [
            F.linear(x_NI, torch.addmm(layer.weight, b.to(x_NI.dtype), a_Ir.mT, alpha=layer.scale), layer.bias)
            for layer, a_Ir, b in zip(layers, _by_layer(down_RI.mT, layers), up, strict=True)
        ], [None, down_RI, *up]
    inner_NR = x_NI @ down_RI.mT
    outputs = []
    for layer, b, inner_Nr in zip(layers, up, _by_layer(inner_NR, layers), strict=True):
        change_NO = F.linear(inner_Nr, (layer.scale * b).to(x_NI.dtype), layer.bias)
        outputs.append(change_NO.addmm_(x_NI, layer.weight.mT))
    return outputs, [inner_NR, down_RI, *up]


class _Pulled:
    """The derivatives of :func:`low_rank`; the input is not asked for until the factors' are."""

    def __init__(self, layers: Sequence[LowRank], kept: Sequence[Any], grads: Sequence[Tensor]) -> None:
        self.layers = layers
        self.inner_NR, self.down_RI, *self.up = kept
        self.grads = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
        inner = [
            (g_NO @ b.to(g_NO.dtype)).mul_(layer.scale)
            for layer, b, g_NO in zip(layers, self.up, self.grads, strict=True)
        ]
        self.inner_grad_NR = torch.cat(inner, -1)

    def by_input(self) -> Tensor:
        total_NI = self.inner_grad_NR @ self.down_RI
        for layer, g_NO in zip(self.layers, self.grads, strict=True):
            total_NI.addmm_(g_NO, layer.weight)
        return total_NI

    def by_factors(self, x_NI: Tensor) -> tuple[Tensor, ...]:
        inner_NR = x_NI @ self.down_RI.mT if self.inner_NR is None else self.inner_NR
        grad_down = _by_layer((self.inner_grad_NR.mT @ x_NI).to(self.up[0].dtype).mT, self.layers)
        grad_up = [
            (inner_Nr.mT @ g_NO).mul_(layer.scale).to(b.dtype).mT
            for layer, b, inner_Nr, g_NO in zip(
                self.layers, self.up, _by_layer(inner_NR, self.layers), self.grads, strict=True
            )
        ]
        return *(part.mT for part in grad_down), *grad_up


def _by_layer(wide: Tensor, layers: Sequence[LowRank]) -> Sequence[Tensor]:
    """(..., sum of ranks) -> each layer's columns."""
    return wide.split([layer.down.shape[0] for layer in layers], -1)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    r"""y = w x / sqrt(mean(x^2) + eps) over the last axis of length H, w frozen; in float32, answered in the narrower
    dtype of x and w.

    With r = 1 / sqrt(mean(x^2) + eps) and g the gradient at y:  dx = r (w g) - x r^3 mean(w g x).
    """
    y, inverse = _RMSNorm.apply(x, weight, eps)
    setattr(y, _MADE, (y._version, (x.detach(), weight, inverse)))
    return y


_MADE = "_made_of"
"""Name of what :func:`rms_norm` leaves on its answer for who would keep that: its version, and what :func:`_normed`
makes it of."""


def _normed(x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    narrower = min(x.dtype, weight.dtype, key=lambda dtype: dtype.itemsize)
    return (x.to(inverse.dtype) * inverse).to(narrower).mul_(weight)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        inverse = torch.linalg.vector_norm(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1, keepdim=True)
        inverse = inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        ctx.mark_non_differentiable(inverse)
        return _normed(x, weight, inverse), inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None]:
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
        return _by_gate(grad, gate, up, ctx.activation), _activate(gate, ctx.activation).mul_(grad), None


def gated_low_rank(gate: Tensor, up: Tensor, activation: str, layer: LowRank) -> Tensor:
    """:func:`low_rank` of :func:`gated`, whose product is made again in backward: it is a sixth of what a decoder layer
    would keep, and half of it is made there anyway."""
    return _GatedLowRank.apply(gate, up, activation, layer, layer.down, layer.up)


class _GatedLowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str, layer: LowRank, *factors: Tensor) -> Tensor:
        x = _activate(gate, activation).mul_(up)
        (y_NO,), kept = _read(x.reshape(-1, x.shape[-1]), [layer], factors)
        ctx.save_for_backward(gate, up, *kept)
        ctx.activation, ctx.layer = activation, layer
        return y_NO.view(*gate.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, *kept = ctx.saved_tensors
        pulled = _Pulled([ctx.layer], kept, [grad])
        grad_x = pulled.by_input().view(gate.shape)
        active = _activate(gate, ctx.activation)
        by_factors = pulled.by_factors((active * up).view(-1, gate.shape[-1]))
        return _by_gate(grad_x, gate, up, ctx.activation), active.mul_(grad_x), None, None, *by_factors


def _by_gate(grad: Tensor, gate: Tensor, up: Tensor, activation: str) -> Tensor:
    if activation == "silu":
        return torch.ops.aten.silu_backward(grad * up, gate)
    return torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh")


def _activate(gate: Tensor, activation: str) -> Tensor:
    return F.silu(gate) if activation == "silu" else F.gelu(gate, approximate="tanh")


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    r"""Rotary position embedding of q and k (..., d): x cos + (-x_2, x_1) sin, for halves x = (x_1, x_2).

    The derivative is the same rotation turned back: g cos + ((g sin)_2, -(g sin)_1). Taken in the dtype of q.
    """
    cos, sin = (table.to(q.dtype).unsqueeze(unsqueeze_dim) for table in (cos, sin))
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
