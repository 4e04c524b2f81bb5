"""Orthogonal maps with few parameters, identity at the start: Householder pairs, Cayley, Kronecker (and Givens trees).

Each is a module that applies the orthogonal matrix R to the last axis without forming it::

    rotation(x)             R x, for each vector x on the last axis
    rotation.transposed(x)  R^T x, the inverse
    rotation.matrix()       R itself, for merging and for tests
    rotation.distance()     ||R - I||_F, how far it has turned

Givens rotations are in :mod:`~grainline.adapters._givens`. Width of the space: ``D``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class OrthogonalMap(nn.Module):
    """The interface. Subclasses are leaves: they apply R and R^T to the last axis."""

    width: int

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def transposed(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def matrix(self) -> Tensor:
        """R, (D, D)."""
        like = next(self.parameters())
        # Row i of the result of applying R^T to the rows of I is R^T e_i, that is, row i of R.
        return self.transposed(torch.eye(self.width, dtype=like.dtype, device=like.device))

    def distance(self) -> Tensor:
        """The Frobenius norm of R - I: 0 at the start, at most 2 sqrt(D)."""
        matrix = self.matrix()
        return (matrix - torch.eye(self.width, dtype=matrix.dtype, device=matrix.device)).norm()


class HouseholderPair(OrthogonalMap):
    """R = (I - 2 u u') (I - 2 v v') with unit vectors along u and v, equal at the start; 2 D parameters.

    Turns the plane of u and v by twice the angle between them.
    """

    def __init__(self, width: int, **like: Any) -> None:
        super().__init__()
        self.width = width
        start = torch.randn(width, **like)
        self.u, self.v = nn.Parameter(start), nn.Parameter(start.clone())

    def forward(self, x: Tensor) -> Tensor:
        return mirrored(x, torch.stack((self.v, self.u)))

    def transposed(self, x: Tensor) -> Tensor:
        return mirrored(x, torch.stack((self.u, self.v)))


def mirrored(x: Tensor, normals_KD: Tensor) -> Tensor:
    """The last axis of ``x`` reflected at K planes through 0, one after another, each given by what is normal to it."""
    return _Mirror.apply(x, normals_KD)


class _Mirror(torch.autograd.Function):
    """A reflection is its own inverse: as for rotations, the backward pass keeps the last activation alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, normals_KD: Tensor) -> Tensor:
        y = as_rows(x)
        for normal in normals_KD:
            _mirror(y, normal)
        ctx.save_for_backward(y, normals_KD)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        kept, normals_KD = ctx.saved_tensors
        y, grad, of_normals = kept.clone(), as_rows(outer), torch.empty_like(normals_KD)
        for k in range(len(normals_KD) - 1, -1, -1):
            normal = normals_KD[k]
            _mirror(y, normal)  # now what went in: x, and y was x - 2 n (n.x) / n.n
            square, along_x, along_grad = normal.square().sum(), y @ normal, grad @ normal
            mixed = 2 * (along_x @ along_grad) / square * normal
            of_normals[k] = (mixed - along_x @ grad - along_grad @ y) * (2 / square)
            _mirror(grad, normal)
        return grad.view(outer.shape), of_normals


def _mirror(x: Tensor, normal: Tensor) -> None:
    """Reflect in place."""
    x.addr_(x @ normal, normal * (-2 / normal.square().sum()))


def as_rows(x: Tensor) -> Tensor:
    """A copy of ``x`` as a contiguous matrix: all vectors of its last axis."""
    return x.clone(memory_format=torch.contiguous_format).view(-1, x.shape[-1])


class Cayley(OrthogonalMap):
    """R = (I - K) (I + K)^-1 with K = (P - P') / 2; D squared stored parameters, of which D (D - 1) / 2 count.

    Reaches every rotation but those by exactly 180 degrees.
    """

    def __init__(self, width: int, **like: Any) -> None:
        super().__init__()
        self.width = width
        self.generator = nn.Parameter(torch.zeros(width, width, **like))

    def matrix(self) -> Tensor:
        skew = (self.generator - self.generator.T) / 2
        one = torch.eye(self.width, dtype=skew.dtype, device=skew.device)
        return torch.linalg.solve(one + skew, one - skew)  # the two factors commute

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix().T

    def transposed(self, x: Tensor) -> Tensor:
        return x @ self.matrix()


class Kronecker(OrthogonalMap):
    """R = Q_1 (x) Q_2 (x) ... of smaller orthogonal maps, on an axis as long as the product of their widths."""

    def __init__(self, factors: Sequence[OrthogonalMap]) -> None:
        super().__init__()
        self.factors = nn.ModuleList(factors)
        self.sizes = [factor.width for factor in factors]
        self.width = math.prod(self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        return self._each(x, lambda factor, x: factor(x))

    def transposed(self, x: Tensor) -> Tensor:
        return self._each(x, lambda factor, x: factor.transposed(x))

    def _each(self, x: Tensor, apply: Callable[[OrthogonalMap, Tensor], Tensor]) -> Tensor:
        x = x.unflatten(-1, self.sizes)
        for axis, factor in zip(range(-len(self.sizes), 0), self.factors, strict=True):
            x = apply(factor, x.transpose(axis, -1)).transpose(axis, -1)  # type: ignore[arg-type]
        return x.flatten(-len(self.sizes))


def kronecker_sizes(width: int) -> tuple[int, int, int]:
    """The three factors of ``width`` whose squares sum to least: the fewest parameters for matrices of these sizes."""
    divisors = [a for a in range(1, width + 1) if width % a == 0]
    triples = ((a, b, width // (a * b)) for a in divisors for b in divisors if a <= b and width % (a * b) == 0)
    return min((t for t in triples if t[1] <= t[2]), key=lambda t: sum(n * n for n in t))
