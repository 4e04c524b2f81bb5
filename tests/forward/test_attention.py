"""Attention by plain products is attention: against torch's own over the whole tree's mask, values and derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from grainline.forward import attention
from grainline.forward.trees import tree_mask
from grainline.types import Tree

TREES = (Tree(0, 9, (7, 5, 0, 6)), Tree(27, 1, (12,)), Tree(40, 6, (1, 3)))
SCALE = 0.3


def positions() -> Tensor:
    counts = [
        part
        for tree in TREES
        for part in (range(tree.prompt), *(range(tree.prompt, tree.prompt + b) for b in tree.branches))
    ]
    return torch.tensor([n for part in counts for n in part])


def masked(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """The whole row at once, with everything that may not be seen at minus infinity."""
    sees = torch.zeros(q.shape[2], q.shape[2], dtype=torch.bool)
    where = positions()
    for tree in TREES:
        here = slice(tree.start, tree.stop)
        sees[here, here] = tree_mask(tree, where[here], window)
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=SCALE).transpose(1, 2)


@pytest.mark.parametrize("rows", [1, 4, 256], ids=lambda n: f"{n} rows a block")
@pytest.mark.parametrize("window", [None, 1, 6, 100])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_values_and_derivatives(key_heads: int, window: int | None, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    count = TREES[-1].stop
    q, k, v = (  # as projections leave them: (1, N, heads, d) in memory
        torch.randn(1, count, heads, 8, generator=generator, dtype=torch.float64).transpose(1, 2).requires_grad_()
        for heads in (4, key_heads, key_heads)
    )
    plan = [block for tree in TREES for block in attention.blocks(tree, window, q.device)]
    ours, theirs = attention.attend(q, k, v, plan, SCALE), masked(q, k, v, window)
    assert ours.shape == (1, count, 4, 8)
    pull = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    assert float((ours - theirs).detach().abs().max()) < 1e-12
    pairs = zip(torch.autograd.grad(ours, (q, k, v), pull), torch.autograd.grad(theirs, (q, k, v), pull), strict=True)
    assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-12


def test_no_product_is_taken_between_siblings_nor_far_above_the_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "ROWS", 4)
    plan = attention.blocks(Tree(10, 6, (2, 5)), None, torch.device("cpu"))
    assert [(b.start, b.stop, b.keys) for b in plan] == [
        (10, 14, ((10, 14),)),
        (14, 18, ((10, 18),)),  # the prompt's end and the first answer: one chain
        (18, 22, ((10, 16), (18, 22))),  # the second answer: the prompt, and itself
        (22, 23, ((10, 16), (18, 23))),
    ]
    assert all(
        block.unseen.tolist() == torch.ones(b, b).triu(1).bool().tolist()
        for block in plan
        for b in [block.stop - block.start]
    )
