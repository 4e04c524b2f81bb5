r"""Attention of packed question trees by plain matrix products, block by block: what a CPU is fast at.

A block is a run of query rows with the one or two runs of keys that they may see: the prompt (with the answer that
stands behind it), and, for further answers, their own tokens. Products between siblings, and most of those above the
diagonal, are never taken. For one block and one key head, whose query heads are read as more rows of the same matrix,

    P = softmax(s q k' + mask),     y = P v

Backward makes P again, so that nothing of size (tokens x tokens) is kept:

    dv += P' g,     D = P * (g v' - rowsum(P * g v')),     dq = s D k,     dk += s D' q

On SmolLM2's rows of 100 to 500 tokens this takes half to a quarter of the time of torch's fused CPU attention, in
bfloat16 more than in float32 (see docs/performance.md). CUDA has better kernels and does not come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from grainline.types import Tree

ROWS = 256
"""Query rows of a block: enough for a good product, few enough to skip most of what is masked."""


class Block(NamedTuple):
    """Query rows that are answered together, and the keys they may see."""

    start: int  # query rows of the packed row, inclusive
    stop: int  # exclusive
    keys: tuple[tuple[int, int], ...]  # runs of key rows, in order
    unseen: Tensor  # (rows, the last so many keys) True where one may not be seen; all keys before are seen


def blocks(tree: Tree, window: int | None, device: torch.device) -> list[Block]:
    """The blocks of one tree. Positions count through the prompt and on through each answer."""
    found = []
    prompt, first = tree.start + tree.prompt, tree.prompt + (tree.branches[0] if tree.branches else 0)
    chains = [(tree.start, tree.start, tree.start + first)]
    at = tree.start + first
    for branch in tree.branches[1:]:
        chains.append((prompt, at, at + branch))
        at += branch
    for shared, begin, end in chains:  # rows begin..end see the prompt up to `shared`, and their own chain
        for start in range(begin, end, ROWS):
            stop = min(start + ROWS, end)
            keys = tuple(run for run in ((tree.start, shared), (begin, stop)) if run[0] < run[1])
            found.append(Block(start, stop, keys, _unseen(keys, stop - start, window, device)))
    return found


def _unseen(keys: Sequence[tuple[int, int]], rows: int, window: int | None, device: torch.device) -> Tensor:
    """Over all keys if the window does not reach back to the first; else over the block's own diagonal."""
    count = sum(stop - start for start, stop in keys)
    window = None if window is None or window >= count else window
    over = rows if window is None else count
    behind = torch.arange(over - rows, over, device=device)[:, None] - torch.arange(over, device=device)
    return behind < 0 if window is None else (behind < 0) | (behind >= window)


def attend(q: Tensor, k: Tensor, v: Tensor, plan: Sequence[Block], scale: float) -> Tensor:
    """(1, heads, N, d) queries over (1, key heads, N, d) keys and values -> (1, N, heads, d)."""
    return _Attend.apply(q, k, v, plan, scale)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Sequence[Block], scale: float) -> Tensor:
        _, H, N, _ = q.shape
        out_NHd, scaled = q.new_empty(N, H, v.shape[-1]), k * scale  # keys: fewer numbers than queries or scores
        for block in plan:
            weights = _weights(_rows(q, block, k.shape[1]), _seen(scaled, block), block)
            out_NHd[block.start : block.stop] = _unrows(torch.bmm(weights, _seen(v, block)), block, H).transpose(0, 1)
        ctx.save_for_backward(q, k, v)
        ctx.plan, ctx.scale = plan, scale
        return out_NHd[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v = ctx.saved_tensors
        K, H, scaled = k.shape[1], q.shape[1], k * ctx.scale
        # Written as the projections were read: (N, heads, d) in memory. Every query is in one block, a key in several.
        dq, dk, dv = (torch.empty_like(x[0].transpose(0, 1), memory_format=torch.contiguous_format) for x in (q, k, v))
        for total in (dk, dv):
            total.zero_()
        for block in ctx.plan:
            rows, g, keys = _rows(q, block, K), _rows(grad.transpose(1, 2), block, K), _seen(scaled, block)
            weights = _weights(rows, keys, block)
            pulled = torch._softmax_backward_data(torch.bmm(g, _seen(v, block).mT), weights, -1, weights.dtype)
            dq[block.start : block.stop] = _unrows(torch.bmm(pulled, keys), block, H).transpose(0, 1)
            _add(dk, torch.bmm(pulled.mT, rows), block)
            _add(dv, torch.bmm(weights.mT, g), block)
        return dq.transpose(0, 1)[None], dk.mul_(ctx.scale).transpose(0, 1)[None], dv.transpose(0, 1)[None], None, None


def _rows(q: Tensor, block: Block, key_heads: int) -> Tensor:
    """(key heads, groups * rows, d): the query heads of one key head as more rows."""
    return q[0, :, block.start : block.stop].reshape(key_heads, -1, q.shape[-1])


def _unrows(answer: Tensor, block: Block, heads: int) -> Tensor:
    """(key heads, groups * rows, d) -> (heads, rows, d)."""
    return answer.view(heads, block.stop - block.start, answer.shape[-1])


def _seen(k: Tensor, block: Block) -> Tensor:
    """(key heads, keys, d): the keys, or values, of a block side by side."""
    runs = [k[0, :, start:stop] for start, stop in block.keys]
    return runs[0] if len(runs) == 1 else torch.cat(runs, 1)


def _add(total: Tensor, part: Tensor, block: Block) -> None:
    """Back to where :func:`_seen` took it from: (key heads, keys, d) into (N, key heads, d)."""
    for (start, stop), run in zip(block.keys, part.split([stop - start for start, stop in block.keys], 1), strict=True):
        total[start:stop] += run.transpose(0, 1)


def _weights(rows: Tensor, keys: Tensor, block: Block) -> Tensor:
    """(key heads, groups * rows, keys): how much each key is heard; keys are scaled."""
    score = torch.bmm(rows, keys.mT)
    count, over = block.unseen.shape
    score.view(len(score), -1, count, score.shape[-1])[..., -over:].masked_fill_(block.unseen, float("-inf"))
    return score.softmax(-1)
