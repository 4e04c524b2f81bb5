"""Tree attention: a token sees its prompt and its own answer, never a sibling. Registered with transformers.

A layer calls it with that layer's own sliding window and soft-cap, so no layer type needs a case here.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from grainline.forward import attention
from grainline.types import Batch, Tree

ATTENTION = "grainline_tree"
"""Name under which :func:`tree_attention` is registered with transformers."""


class Trees:
    """The trees of a packed row, with their attention masks made once per window and dtype.

    Args:
        by_products: attend by plain matrix products (None: on a CPU), else by torch's fused attention.
    """

    def __init__(self, batch: Batch, *, by_products: bool | None = None) -> None:
        self.trees, self.positions = batch.trees, batch.positions[0]
        self.by_products = self.positions.device.type == "cpu" if by_products is None else by_products
        self._masks: dict[tuple[int, int, int | None, torch.dtype], Tensor] = {}
        self._plans: dict[int | None, list[attention.Block]] = {}

    def plan(self, window: int | None) -> list[attention.Block]:
        """The blocks of all trees, for attention by plain products."""
        if window not in self._plans:
            device = self.positions.device
            self._plans[window] = [b for tree in self.trees for b in attention.blocks(tree, window, device)]
        return self._plans[window]

    def mask(self, i: int, branch: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """What the tokens of tree i's ``branch`` may see of [prompt; branch], added to scores; None is plain causal.

        Branch 0 stands behind its prompt and is read together with it, as one chain.
        """
        tree = self.trees[i]
        length = tree.prompt + tree.branches[branch]
        if branch == 0 and (window is None or window >= length):
            return None
        if (i, branch, window, dtype) not in self._masks:
            chain = Tree(0, tree.prompt, (tree.branches[branch],))
            sees = tree_mask(chain, torch.arange(length, device=self.positions.device), window)
            sees = sees if branch == 0 else sees[tree.prompt :]
            mask = torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, float("-inf"))
            self._masks[i, branch, window, dtype] = mask
        return self._masks[i, branch, window, dtype]


def tree_mask(tree: Tree, positions: Tensor, window: int | None) -> Tensor:
    """(L, L) bool: token i sees token j if j is in the prompt or in i's own answer, not later, and within the window.

    ``positions`` restart after the prompt for each answer, so distances are those of (prompt, answer) read alone.
    """
    branch = torch.repeat_interleave(
        torch.arange(len(tree.branches) + 1, device=positions.device),
        torch.tensor([tree.prompt, *tree.branches], device=positions.device),
    )
    distance = positions[:, None] - positions[None, :]
    sees = ((branch[None, :] == 0) | (branch[None, :] == branch[:, None])) & (distance >= 0)
    return sees if window is None else sees & (distance < window)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    trees: Trees | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface over a packed row: (1, heads, N, d) each, block by block.

    A layer hands in its own ``sliding_window`` and ``softcap``, so layer types need no case of their own.
    """
    if trees is None:
        raise RuntimeError("tree attention was called without trees; call the model inside Scorer.plain()")
    if others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise NotImplementedError("attention sinks and position biases cannot be read as trees")
    if trees.by_products and softcap is None and not dropout:
        scale = scaling or query.shape[-1] ** -0.5
        return attention.attend(query, key, value, trees.plan(sliding_window), scale), None
    groups = query.shape[1] // key.shape[1]
    # A CPU reads shared key heads as they are; CUDA's fast kernels do not take them together with a mask.
    shared = groups > 1 and query.device.type == "cpu" and softcap is None
    if groups > 1 and not shared:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    attend = functools.partial(_attend, scaling=scaling, softcap=softcap, dropout=dropout, shared=shared)
    blocks = []
    sizes = [tree.stop - tree.start for tree in trees.trees]
    for i, whole in enumerate(zip(*(x.split(sizes, 2) for x in (query, key, value)), strict=True)):
        # The prompt and its first answer are one causal chain; each further answer sees the prompt and itself.
        # So no product is taken between siblings, and half of the chain's is skipped.
        prompt, (first, *rest) = trees.trees[i].prompt, trees.trees[i].branches
        parts = [x.split([prompt + first, *rest], 2) for x in whole]
        for branch, (q, k, v) in enumerate(zip(*parts, strict=True)):
            if branch:
                k, v = (torch.cat([part[0][:, :, :prompt], x], 2) for part, x in zip(parts[1:], (k, v), strict=True))
            if q.shape[2]:
                blocks.append(attend(q, k, v, trees.mask(i, branch, sliding_window, query.dtype)).transpose(1, 2))
    return torch.cat(blocks, 1), None


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    scaling: float | None,
    softcap: float | None,
    dropout: float,
    shared: bool,
) -> Tensor:
    """(1, heads, L, d) attention of q over k and v; without a mask it is causal."""
    if softcap is None:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scaling, enable_gqa=shared
        )
    if mask is None:
        mask = torch.full((q.shape[2], k.shape[2]), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    return _softcapped(q, k, v, mask, scaling or q.shape[-1] ** -0.5, softcap, dropout)


def _softcapped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float, dropout: float) -> Tensor:
    """Attention with scores squeezed into (-cap, cap) before the mask (Gemma 2)."""
    scores = cap * torch.tanh(q @ k.mT * scale / cap) + mask
    weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
    return F.dropout(weights, dropout) @ v


AttentionInterface.register(ATTENTION, tree_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)  # the masks are made here, tree by tree
