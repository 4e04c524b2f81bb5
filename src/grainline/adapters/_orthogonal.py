"""Orthogonal maps with few parameters, identity at the start: Givens trees, Householder pairs, Cayley, Kronecker.

Each is a module that applies the orthogonal matrix R to the last axis without forming it::

    rotation(x)             R x, for each vector x on the last axis
    rotation.transposed(x)  R^T x, the inverse
    rotation.matrix()       R itself, for merging and for tests
    rotation.distance()     ||R - I||_F, how far it has turned

``G(i, j, t)`` is the identity but for G_ii = G_jj = cos t, G_ij = -sin t, G_ji = sin t. Width of the space: ``D``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


# ------------------------------------------------------------------------------------------------- Givens rotations


class Stage(NamedTuple):
    """Disjoint rotations: coordinate i turns with coordinate i + gap by angle first + i, for i < pairs."""

    first: int
    gap: int
    pairs: int


def tree(width: int) -> list[Stage]:
    """The stages of a tournament: the upper half of what is left turns with the lower half, which goes on.

    width - 1 rotations in log2(width) stages. With suitable angles they turn any one vector onto the first axis; halves
    instead of neighbours only name the coordinates differently, and lie side by side in memory.
    """
    stages, left = [], width
    while left > 1:
        gap = (left + 1) // 2
        stages.append(Stage(width - left, gap, left - gap))
        left = gap
    return stages


class Givens(OrthogonalMap):
    """R = B F: a tree of rotations towards the first axis (F), then another tree back (B); 2 (D - 1) angles.

    The tree has two levels: tournaments in groups of neighbours, then one among their winners and the D mod group
    coordinates that are left. So R is block-diagonal but for what it does to the winners, and is applied as small
    matrices: one batched product, whatever the depth, that keeps its input alone for the backward pass.
    """

    def __init__(self, width: int, *, group: int = 32, **like: Any) -> None:
        super().__init__()
        self.width, self.group, self.groups = width, group, width // group
        self.top = self.groups + width % group  # coordinates of the second level
        self.towards = nn.Parameter(torch.zeros(width - 1, **like))  # radians: group by group, then the second level
        self.back = nn.Parameter(torch.zeros(width - 1, **like))  # the same order, though the last acts first

    def forward(self, x: Tensor) -> Tensor:
        return self._turned(x, torch.stack((self.towards, -self.back)))

    def transposed(self, x: Tensor) -> Tensor:
        return self._turned(x, torch.stack((-self.back, self.towards)))

    def _turned(self, x: Tensor, angles: Tensor) -> Tensor:
        """x after the tree of ``angles[0]`` and the transposed tree of ``angles[1]``."""
        inside = self.groups * (self.group - 1)
        there, home = tree_matrices(angles[:, inside:], self.top)
        if not self.groups:
            return x @ (home.T @ there).T
        blocks = tree_matrices(angles[:, :inside].reshape(-1, self.group - 1), self.group)
        first, last = blocks.view(2, self.groups, self.group, self.group)
        # Beside the block-diagonal part last' first, each group's winner: its first coordinate behind ``first``.
        rows = torch.cat((last.mT @ first, first[:, :1]), dim=1)
        grouped = x[..., : self.groups * self.group].unflatten(-1, (self.groups, self.group))
        turned = torch.einsum("...ni,nji->...nj", grouped, rows)
        winners = torch.cat((turned[..., self.group], x[..., self.groups * self.group :]), dim=-1)
        moved = winners @ (home.T @ there).T
        change = (moved - winners)[..., : self.groups, None]
        y = torch.addcmul(turned[..., : self.group], change, last[:, 0]).flatten(-2)
        return y if self.top == self.groups else torch.cat((y, moved[..., self.groups :]), dim=-1)


def tree_matrices(angles_BA: Tensor, width: int) -> Tensor:
    """(B, width, width): the matrices of B trees, each of width - 1 angles in the order of :func:`tree`."""
    count = len(angles_BA)
    # All trees turn at once: coordinate i of tree b stands at i * count + b, so that a stage is one slice.
    rows = torch.eye(width, dtype=angles_BA.dtype, device=angles_BA.device).repeat_interleave(count, dim=1)
    stages = [Stage(*(count * number for number in stage)) for stage in tree(width)]
    return turned(rows, angles_BA.T.flatten(), stages).view(width, width, count).permute(2, 1, 0)


class Pairs(OrthogonalMap):
    """One rotation for each pair of coordinates (i, i + D/2): D/2 angles, and two coordinates meet no third."""

    def __init__(self, width: int, **like: Any) -> None:
        super().__init__()
        self.width = width
        self.angle = nn.Parameter(torch.zeros(width // 2, **like))  # radians

    def forward(self, x: Tensor) -> Tensor:
        return turned(x, self.angle, self._stages)

    def transposed(self, x: Tensor) -> Tensor:
        return turned(x, -self.angle, self._stages)

    @property
    def _stages(self) -> list[Stage]:
        return [Stage(0, self.width - self.width // 2, self.width // 2)]


def turned(x: Tensor, angles: Tensor, stages: Sequence[Stage]) -> Tensor:
    """The last axis of ``x`` after the rotations of ``stages``, the first of them first."""
    return _Turn.apply(x, angles, stages)


class _Turn(torch.autograd.Function):
    """Rotations can be undone, so the backward pass keeps the last activation alone and recovers the others from it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, angles: Tensor, stages: Sequence[Stage]) -> Tensor:
        y, cos, sin = _rows(x), angles.cos(), angles.sin()
        for first, gap, pairs in stages:
            here = slice(first, first + pairs)
            _turn(y, cos[here], sin[here], gap)
        ctx.save_for_backward(y, cos, sin)
        ctx.stages = stages
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        kept, cos, sin = ctx.saved_tensors
        both, angle, rows = torch.cat((kept, _rows(outer))), torch.empty_like(cos), len(kept)
        for first, gap, pairs in reversed(ctx.stages):
            here = slice(first, first + pairs)
            # The derivative of a rotation by its angle is a quarter turn more: read off behind the rotation.
            low, high = both[:rows, :pairs], both[:rows, gap : gap + pairs]
            of_low, of_high = both[rows:, :pairs], both[rows:, gap : gap + pairs]
            angle[here] = (of_high * low).addcmul_(of_low, high, value=-1).sum(0)
            _turn(both, cos[here], -sin[here], gap)
        return both[rows:].reshape(outer.shape), angle, None


def _rows(x: Tensor) -> Tensor:
    """A copy of ``x`` as a contiguous matrix: all vectors of its last axis."""
    return x.clone(memory_format=torch.contiguous_format).view(-1, x.shape[-1])


def _turn(x: Tensor, cos: Tensor, sin: Tensor, gap: int) -> None:
    """Rotate in place."""
    low, high = x[:, : len(cos)], x[:, gap : gap + len(cos)]
    was = low.clone()
    low.mul_(cos).addcmul_(high, sin, value=-1)
    high.mul_(cos).addcmul_(was, sin)


# ---------------------------------------------------------------------------------------------- other constructions


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
        y = _rows(x)
        for normal in normals_KD:
            _mirror(y, normal)
        ctx.save_for_backward(y, normals_KD)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        kept, normals_KD = ctx.saved_tensors
        y, grad, of_normals = kept.clone(), _rows(outer), torch.empty_like(normals_KD)
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
