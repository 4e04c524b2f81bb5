r"""Derivatives at zero from values on a circle: the Fourier coefficient of the response to a turning teaching signal.

A holomorphic response r(beta) = sum_m a_m beta^m has its derivative a_1 at zero in its values around zero (Cauchy)::

    a_1 = 1/N sum_t r(beta_t) / beta_t,     beta_t = |beta| exp(2 pi i t / N),  t = 0 .. N - 1            N >= 2
    a_1 = (r(|beta|) - r(0)) / |beta|                                                                     N  = 1

N points confuse a_1 with every a_{1 + kN} |beta|^{kN}, so the error shrinks as |beta|^N (as |beta| for N = 1): N = 1 is
the classical one-sided difference, N = 2 the centred one. None of this holds once the circle leaves the region where
the response is holomorphic; then no N helps [inferred, and seen in our figures].

r is real at real beta, so r at the conjugate of beta is the conjugate of r: points of the lower half are not computed
[official code]. N <= 2 needs no complex number at all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from grainline.types import spec


@spec
class Teaching:
    """The teaching signal: a strength |beta| and N points around zero."""

    points: int = Field(default=2, ge=1)
    """How many values of the circle, N: 1 one-sided, 2 centred, more complex."""
    radius: float = Field(default=0.1, gt=0)
    """|beta|: how hard the output is pushed, in units of u per unit of dL/dr."""


class Circle(NamedTuple):
    """The points that must be computed, K of them."""

    beta_K: Tensor  # real for N <= 2, else complex, Im >= 0
    count_K: Tensor  # 2 where the conjugate point is left out, else 1


def circle(teaching: Teaching, like: Tensor) -> Circle:
    """Upper half of the circle, with the precision of ``like`` (a real tensor)."""
    n, kept = teaching.points, range(teaching.points // 2 + 1)
    kept = kept if n > 1 else range(1)
    counts = [1 if t == 0 or 2 * t == n else 2 for t in kept]
    if n <= 2:
        beta_K = torch.tensor([teaching.radius, -teaching.radius][:n], dtype=like.dtype, device=like.device)
    else:
        angle_K = torch.tensor([2 * math.pi * t / n for t in kept], dtype=like.dtype, device=like.device)
        beta_K = torch.polar(torch.full_like(angle_K, teaching.radius), angle_K)
    return Circle(beta_K, torch.tensor(counts, dtype=like.dtype, device=like.device))


def derivative(response_K: Tensor, at_zero: Tensor, teaching: Teaching) -> Tensor:
    """a_1 from the response (K, ...) at the points of :func:`circle` and its real value (...) at zero."""
    beta_K, count_K = (_beside(part, response_K) for part in circle(teaching, at_zero))
    if teaching.points == 1:
        return (response_K[0] - at_zero) / teaching.radius
    return (count_K * response_K / beta_K).sum(0).real / teaching.points


def excess(response_K: Tensor, at_zero: Tensor, teaching: Teaching) -> Tensor:
    """The mean of the response over the circle less its value at zero: a_N |beta|^N + a_2N |beta|^2N + ...

    It is zero for a holomorphic response and many points (mean value property), so it tells of a circle that is too
    wide without knowing the true derivative. Ours, not the paper's. For N = 1 it is the whole response.
    """
    _, count_K = (_beside(part, response_K) for part in circle(teaching, at_zero))
    return (count_K * response_K).sum(0).real / teaching.points - at_zero


def _beside(part_K: Tensor, response_K: Tensor) -> Tensor:
    return part_K.reshape(-1, *[1] * (response_K.dim() - 1))
