"""Rotations made of Givens rotations: trees over all coordinates, or one for each pair.

``G(i, j, t)`` is the identity but for G_ii = G_jj = cos t, G_ij = -sin t, G_ji = sin t.
Width of the space: ``D``. A tree is applied as small matrices, a layer of pairs in place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from grainline.adapters._orthogonal import OrthogonalMap, as_rows


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
    matrices: one batched product, whatever the depth; backward keeps its input and the winners.
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
        blocks, top = self._matrices(angles)
        if not self.groups:
            return x @ (top[1].T @ top[0]).T
        return _TwoLevels.apply(x, blocks, top)

    def factors(self) -> tuple[Tensor, Tensor]:
        """What R' is made of, for :meth:`turn` and :meth:`of_factors`: first and last blocks, there and home."""
        return self._matrices(torch.stack((-self.back, self.towards)))

    def _matrices(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Of the groups (2, G, N, N), and of the second level (2, W, W)."""
        sizes = (self.group,) * self.groups + (self.top,)
        blocks, top = tree_matrices(angles, sizes).split((self.groups * self.group**2, self.top**2), dim=1)
        return blocks.view(2, self.groups, self.group, self.group), top.view(2, self.top, self.top)

    @staticmethod
    def turn(rows: Tensor, blocks_2GNN: Tensor, tops_2WW: Tensor) -> Tensor:
        """R w for each row, as a new matrix; outside of autograd."""
        return _two_levels(rows, blocks_2GNN.flip(0), tops_2WW.flip(0))[0]

    @staticmethod
    def of_factors(x_TD: Tensor, of_x: Tensor, blocks_2GNN: Tensor, tops_2WW: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of the factors, from what R' is applied to and its derivative. With R' = last' top first::

            u = first x,   e = first dx          before the second level
            of_first = sum_t e x'                since e is the derivative by u, as dx is by x
            of_top   = sum_t (top e) u'          of the winners
            of_last  = sum_t (top u) (top e)' last

        Outer products of x and dx block by block stand for all that needs no winner's second level.
        """
        first, last = blocks_2GNN
        groups, size = first.shape[:2]
        inside = groups * size
        x, dx = _grouped(x_TD, size, inside), _grouped(of_x, size, inside)  # (T, G, N)
        winners, of_winners = (
            torch.cat(((inner * first[:, 0]).sum(-1), whole[:, inside:]), dim=1)
            for inner, whole in ((x, x_TD), (dx, of_x))
        )
        top = tops_2WW[1].T @ tops_2WW[0]
        of_top = top @ (of_winners.T @ winners)
        up, of_up = (winners @ top.T)[:, :groups], (of_winners @ top.T)[:, :groups]
        x, dx = x.transpose(0, 1).contiguous(), dx.transpose(0, 1).contiguous()  # for three products
        of_first = first @ torch.bmm(dx.mT, x)
        both = of_first @ first.mT  # (G, N, N): sum_t e u', and now the winner's row and column of it
        both[:, :, 0] = (first @ torch.bmm(up.T.unsqueeze(1), dx).mT).squeeze(2)
        both[:, 0] = (first @ torch.bmm(of_up.T.unsqueeze(1), x).mT).squeeze(2)
        both[:, 0, 0] = (up * of_up).sum(0)
        of_tops = torch.matmul(tops_2WW.flip(0), torch.stack((of_top, of_top.T)))
        return torch.stack((of_first, both.mT @ last)), of_tops


class _TwoLevels(torch.autograd.Function):
    """Blocks on the groups, and what the second level does to their winners::

        z_g = first_g x_g                     for each group g; its winner w_g is the first coordinate
        v   = home' there w                   winners and the coordinates without a group, turned
        y_g = last_g' (z_g + (v_g - w_g) e_0)

    where ``blocks`` holds first and last, ``tops`` there and home. Written out because autograd's own way takes half as
    long again. Letters: ``T`` rows of x, ``G`` groups of ``N`` coordinates, ``W`` winners and others.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks_2GNN: Tensor, tops_2WW: Tensor) -> Tensor:
        x_TD = x.reshape(-1, x.shape[-1])
        y_TD, w_TW = _two_levels(x_TD, blocks_2GNN, tops_2WW)
        ctx.save_for_backward(x_TD, w_TW, blocks_2GNN, tops_2WW)
        return y_TD.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_TD, w_TW, blocks_2GNN, tops_2WW = ctx.saved_tensors
        rows, home_GN, top_WW = _joined(blocks_2GNN, tops_2WW)
        groups, size = home_GN.shape
        inside = groups * size
        outer_TD = outer.reshape(x_TD.shape)
        of_y = _grouped(outer_TD, size, inside)  # (T, G, N)
        change = (w_TW @ top_WW.T - w_TW)[:, :groups, None]
        of_change = (of_y * home_GN).sum(-1)
        of_v = torch.cat((of_change, outer_TD[:, inside:]), dim=1)
        of_w = of_v @ top_WW
        of_w[:, :groups] -= of_change
        of_z = of_y.new_empty(groups, len(of_y), size + 1)
        of_z[..., :size] = of_y.transpose(0, 1)
        of_z[..., size] = of_w[:, :groups].T
        of_x = torch.empty_like(x_TD)
        _grouped(of_x, size, inside).copy_(torch.bmm(of_z, rows).transpose(0, 1))
        of_x[:, inside:] = of_w[:, groups:]
        of_rows = torch.bmm(of_z.mT, _grouped(x_TD, size, inside).transpose(0, 1).contiguous())
        of_top = of_v.T @ w_TW
        # Back through _joined: rows = (last' first, first_0), home = last_0, top = home' there.
        of_blocks = torch.matmul(blocks_2GNN.flip(0), torch.stack((of_rows[:, :size], of_rows[:, :size].mT)))
        of_blocks[0, :, 0] += of_rows[:, size]
        of_blocks[1, :, 0] += (of_y * change).sum(0)
        return of_x.view(outer.shape), of_blocks, torch.matmul(tops_2WW.flip(0), torch.stack((of_top, of_top.T)))


def _two_levels(x_TD: Tensor, blocks_2GNN: Tensor, tops_2WW: Tensor) -> tuple[Tensor, Tensor]:
    """y and w."""
    rows, home_GN, top_WW = _joined(blocks_2GNN, tops_2WW)
    groups, size = home_GN.shape
    inside = groups * size
    z = torch.bmm(_grouped(x_TD, size, inside).transpose(0, 1), rows.mT)  # (G, T, N + 1): last' z, and the winner
    w_TW = torch.cat((z[..., size].T, x_TD[:, inside:]), dim=1)
    v_TW, y_TD = w_TW @ top_WW.T, torch.empty_like(x_TD)
    change = (v_TW - w_TW)[:, :groups, None]
    torch.addcmul(z[..., :size].transpose(0, 1), change, home_GN, out=_grouped(y_TD, size, inside))
    y_TD[:, inside:] = v_TW[:, groups:]
    return y_TD, w_TW


def _joined(blocks_2GNN: Tensor, tops_2WW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """last' first and below it the first row of first, (G, N + 1, N); the first row of last, (G, N); home' there."""
    first, last = blocks_2GNN
    return torch.cat((last.mT @ first, first[:, :1]), dim=1), last[:, 0], tops_2WW[1].T @ tops_2WW[0]


def _grouped(x_TD: Tensor, size: int, inside: int) -> Tensor:
    """(T, G, N): a view of the coordinates that are in groups."""
    return x_TD[:, :inside].unflatten(1, (inside // size, size))


def tree_matrices(angles_BA: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """(B, sum of size squared): the matrices of trees, flattened; angles in the order of :func:`tree`."""
    return _Trees.apply(angles_BA, _paths(sizes, angles_BA.device))


class Paths(NamedTuple):
    """How coordinates go through trees. A path is one coordinate's way; ``S`` stages, ``P`` paths.

    Each stage multiplies a path by the factor ``stays``, and leaves the path so far times the factor ``leaves`` in the
    coordinate that it is done with. Factors are numbered: all cosines, all sines, all negative sines, 1, 0.
    """

    stays_SP: Tensor
    leaves_SP: Tensor
    cells: Tensor  # ((S + 1) P,) of the flattened matrices, where what a stage leaves goes, and at last the path itself
    total: int  # cells


class _Trees(torch.autograd.Function):
    """Matrices of trees from their angles. Each coordinate of the input reaches each of the output by one path at most,
    so every entry is a product of cosines and sines; the paths of all trees are walked at once."""

    @staticmethod
    def forward(ctx: Any, angles_BA: Tensor, paths: Paths) -> Tensor:
        cos, sin = angles_BA.cos(), angles_BA.sin()
        constants = torch.tensor([1.0, 0.0], dtype=cos.dtype, device=cos.device).expand(len(cos), 2)
        factors = torch.cat((cos, sin, -sin, constants), dim=1)
        stages, count = paths.stays_SP.shape
        stay = factors.index_select(1, paths.stays_SP.flatten()).view(len(cos), stages, count)
        leave = factors.index_select(1, paths.leaves_SP.flatten()).view(len(cos), stages, count)
        along = torch.ones(len(cos), stages + 1, count, dtype=cos.dtype, device=cos.device)  # before each stage
        for stage in range(stages):
            torch.mul(along[:, stage], stay[:, stage], out=along[:, stage + 1])
        entries = along.clone()
        entries[:, :stages] *= leave
        ctx.save_for_backward(cos, sin, stay, leave, along)
        ctx.paths = paths
        matrices = torch.zeros(len(cos), paths.total, dtype=cos.dtype, device=cos.device)
        return matrices.index_add_(1, paths.cells, entries.flatten(1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        cos, sin, stay, leave, along = ctx.saved_tensors
        paths, stages = ctx.paths, stay.shape[1]
        of_entries = outer.index_select(1, paths.cells).view_as(along)
        of_along = of_entries.clone()
        of_along[:, :stages] *= leave
        for stage in reversed(range(stages)):
            of_along[:, stage].addcmul_(of_along[:, stage + 1], stay[:, stage])
        of_factors = torch.zeros(len(cos), 3 * cos.shape[1] + 2, dtype=cos.dtype, device=cos.device)
        of_factors.index_add_(1, paths.stays_SP.flatten(), (of_along[:, 1:] * along[:, :-1]).flatten(1))
        of_factors.index_add_(1, paths.leaves_SP.flatten(), (of_entries[:, :-1] * along[:, :-1]).flatten(1))
        of_cos, of_sin, of_negative, _ = of_factors.split((*[cos.shape[1]] * 3, 2), dim=1)
        return (of_sin - of_negative) * cos - of_cos * sin, None


@functools.lru_cache(maxsize=64)
def _paths(sizes: tuple[int, ...], device: torch.device) -> Paths:
    """Through trees of these widths; those with fewer stages than the deepest wait at its end."""
    angles = sum(sizes) - len(sizes)
    one, zero = 3 * angles, 3 * angles + 1
    stages = max(len(tree(size)) for size in sizes)
    stays: list[list[int]] = [[] for _ in range(stages + 1)]
    leaves: list[list[int]] = [[] for _ in range(stages + 1)]
    ends: list[list[int]] = [[] for _ in range(stages + 1)]
    before, cell = 0, 0  # angles and cells of the trees so far
    for size in sizes:
        at = list(range(size))  # where each path stands
        for stage, (first, gap, pairs) in enumerate(tree(size)):
            for start, place in enumerate(at):
                angle, end = before + first + place % gap, place
                stay, leave = one, zero  # without a partner
                if place < pairs:  # turns with a higher one, and goes on
                    stay, leave, end = angle, angles + angle, place + gap
                elif place >= gap:  # turns with a lower one, which goes on in its place
                    stay, leave, at[start] = 2 * angles + angle, angle, place - gap
                stays[stage].append(stay)
                leaves[stage].append(leave)
                ends[stage].append(cell + end * size + start)
        for stage in range(len(tree(size)), stages + 1):
            stays[stage] += [one] * size
            leaves[stage] += [zero] * size
            ends[stage] += range(cell, cell + size)  # the first row; all but the last leave nothing there
        before, cell = before + size - 1, cell + size * size
    with torch.inference_mode(False):  # what is remembered must serve training as well
        index = functools.partial(torch.tensor, dtype=torch.long, device=device)
        count = sum(sizes)
        return Paths(
            index(stays[:stages]).view(stages, count),
            index(leaves[:stages]).view(stages, count),
            index(ends).flatten(),
            cell,
        )


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

    def factors(self) -> tuple[Tensor]:
        return (self.angle,)

    @staticmethod
    def turn(rows: Tensor, angle: Tensor) -> Tensor:
        """As :meth:`Givens.turn`."""
        rows = as_rows(rows)
        _turn(rows, angle.cos(), angle.sin(), rows.shape[1] - len(angle))
        return rows

    @staticmethod
    def of_factors(x_TD: Tensor, of_x: Tensor, angle: Tensor) -> tuple[Tensor]:
        """As :meth:`Givens.of_factors`. Quarter turns commute with R: x may stand for R' x."""
        pairs, gap = len(angle), x_TD.shape[1] - len(angle)
        across = x_TD[:, gap:] * of_x[:, :pairs]
        return (across.addcmul_(x_TD[:, :pairs], of_x[:, gap:], value=-1).sum(0),)

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
        y, cos, sin = as_rows(x), angles.cos(), angles.sin()
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
        both, angle, rows = torch.cat((kept, as_rows(outer))), torch.empty_like(cos), len(kept)
        for first, gap, pairs in reversed(ctx.stages):
            here = slice(first, first + pairs)
            # The derivative of a rotation by its angle is a quarter turn more: read off behind the rotation.
            low, high = both[:rows, :pairs], both[:rows, gap : gap + pairs]
            of_low, of_high = both[rows:, :pairs], both[rows:, gap : gap + pairs]
            angle[here] = (of_high * low).addcmul_(of_low, high, value=-1).sum(0)
            _turn(both, cos[here], -sin[here], gap)
        return both[rows:].reshape(outer.shape), angle, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, gap: int) -> None:
    """Rotate in place."""
    low, high = x[:, : len(cos)], x[:, gap : gap + len(cos)]
    was = low.clone()
    low.mul_(cos).addcmul_(high, sin, value=-1)
    high.mul_(cos).addcmul_(was, sin)
