"""Matrix products (GEMM) in float32 on a CPU, by whichever of torch's two libraries uses all of the processor.

torch multiplies float32 matrices with MKL, whose AVX-512 kernels are for Intel's processors: on others it falls back to
AVX2, half as wide. oneDNN, which is in torch too and serves bfloat16, asks what the processor can do, not who made it.
On an AMD EPYC (Zen 5, two cores) it does 440 to 530 GFLOP/s where MKL does 205 to 228. Both round like any float32
product: what changes is the order of sums.

While :func:`by_onednn` lasts, float32 products are taken there; where MKL is as fast nothing is changed. Which library
it is follows from the processor alone and is not timed, so that a run that is resumed multiplies as it did before.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from grainline import machine

LEAST = 2**23
"""Floating-point operations of the smallest product that is worth it: handing one over costs some 10 microseconds more
than a product of torch's own does."""
_THREAD = threading.local()


@functools.cache
def mkl_is_narrow() -> bool:
    """Whether this torch multiplies float32 with half of the vectors that this processor and torch's oneDNN have."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    both = torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return wide and both and machine.vendor() == "AuthenticAMD"


@contextmanager
def by_onednn(when: bool = True) -> Iterator[None]:
    """Take torch's float32 products of matrices by oneDNN, where that is faster: linear layers, ``@``, and the
    derivatives of both, whenever backward comes to them.

    All else is as it was: other dtypes and devices, batched and small products, products under autocast.
    """
    if not when or getattr(_THREAD, "entered", False) or not mkl_is_narrow():
        yield
        return
    _THREAD.entered = True  # a second one would only cost time
    try:
        with _Wide():
            yield
    finally:
        _THREAD.entered = False


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) times b (K, N): for derivatives that are written out, which torch calls outside of :func:`by_onednn`."""
    return _product(a, b) if mkl_is_narrow() and _fits(a, b) else torch.mm(a, b)


def add_matmul(total: Tensor, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """total += scale a b, in place, as :func:`matmul` multiplies."""
    if mkl_is_narrow() and _fits(a, b):
        return total.add_(_product(a, b), alpha=scale)
    return total.addmm_(a, b, alpha=scale)


class _Wide(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        ours = _OURS.get(func) if not kwargs else None
        answer = ours(*args) if ours is not None else None
        return func(*args, **(kwargs or {})) if answer is None else answer


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """None where torch's own product is the one to take."""
    if not (_plain(x) and _plain(weight) and x.ndim >= 2 and weight.ndim == 2):
        return None
    flat = x.reshape(-1, x.shape[-1])
    return _product(flat, weight.t(), bias).view(*x.shape[:-1], -1) if _fits(flat, weight.t()) else None


def _matmul(a: Tensor, b: Tensor) -> Tensor | None:
    return _linear(a, b.t()) if b.ndim == 2 else None


def _addmm(total: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    product = _linear(a, b.t())
    return None if product is None else total + product


_OURS: dict[Any, Callable[..., Tensor | None]] = {
    F.linear: _linear,
    torch.matmul: _matmul,
    torch.mm: _matmul,
    Tensor.matmul: _matmul,
    Tensor.mm: _matmul,
    torch.addmm: _addmm,
}


def _plain(x: Any) -> bool:
    return type(x) in (Tensor, nn.Parameter) and x.dtype == torch.float32 and x.is_cpu


def _fits(a: Tensor, b: Tensor) -> bool:
    """Plain matrices, large enough, and nobody who wants them otherwise."""
    large = a.shape[1] == b.shape[0] and 2 * a.shape[0] * b.numel() >= LEAST
    elsewhere = torch.is_autocast_enabled("cpu") or torch._C._are_functorch_transforms_active()
    return large and _plain(a) and _plain(b) and not elsewhere


def _product(a_MK: Tensor, b_KN: Tensor, bias_N: Tensor | None = None) -> Tensor:
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (a_MK, b_KN, bias_N)):
        return _Product.apply(a_MK, b_KN, bias_N)
    if bias_N is None and not a_MK.is_contiguous() and b_KN.shape[1] < min(a_MK.shape):
        # Y' = B' A': the left one is copied row by row, unless the answer is, which is smaller.
        return _product(b_KN.t(), a_MK.t()).t().contiguous()
    if not (b_KN.is_contiguous() or b_KN.t().is_contiguous()):
        b_KN = b_KN.contiguous()  # a part of a matrix would go a hundred times as slow
    return _pointwise()(a_MK, b_KN.t(), bias_N, "none", [], "")


class _Product(torch.autograd.Function):
    """Y = A B + 1 b':  dA = G B',  dB = A' G,  db = G' 1."""

    @staticmethod
    def forward(ctx: Any, a_MK: Tensor, b_KN: Tensor, bias_N: Tensor | None) -> Tensor:
        left, right, _ = ctx.needs_input_grad
        ctx.save_for_backward(a_MK if right else None, b_KN if left else None)
        return _product(a_MK, b_KN, bias_N)

    @staticmethod
    def backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        a_MK, b_KN = ctx.saved_tensors
        return (
            None if b_KN is None else matmul(grad_MN, b_KN.t()),
            None if a_MK is None else matmul(a_MK.t(), grad_MN),
            grad_MN.sum(0) if ctx.needs_input_grad[2] else None,
        )


def _pointwise() -> Any:
    """oneDNN's linear layer, as torch's compiler calls it."""
    return torch.ops.mkldnn._linear_pointwise.default
