"""Tree attention: a token sees its prompt and its own answer, never a sibling. Registered with transformers.

A layer calls it with that layer's own sliding window and soft-cap, so no layer type needs a case here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from grainline.types import Batch, Tree

ATTENTION = "grainline_tree"
"""Name under which :func:`tree_attention` is registered with transformers."""


class Trees:
    """The trees of a packed row, with their attention masks made once per window and dtype."""

    def __init__(self, batch: Batch) -> None:
        self.trees, self.positions = batch.trees, batch.positions[0]
        self._masks: dict[tuple[int, int | None, torch.dtype], Tensor] = {}

    def mask(self, i: int, window: int | None, dtype: torch.dtype) -> Tensor:
        if (i, window, dtype) not in self._masks:
            tree = self.trees[i]
            sees = tree_mask(tree, self.positions[tree.start : tree.stop], window)
            self._masks[i, window, dtype] = torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, float("-inf"))
        return self._masks[i, window, dtype]


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
    groups = query.shape[1] // key.shape[1]
    # A CPU reads shared key heads as they are; CUDA's fast kernels do not take them together with a mask.
    shared = groups > 1 and query.device.type == "cpu" and softcap is None
    if groups > 1 and not shared:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    sizes = [tree.stop - tree.start for tree in trees.trees]
    blocks = []
    for i, (q, k, v) in enumerate(zip(*(x.split(sizes, 2) for x in (query, key, value)), strict=True)):
        mask = trees.mask(i, sliding_window, query.dtype)
        if softcap is None:
            block = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=shared
            )
        else:
            block = _softcapped(q, k, v, mask, scaling or q.shape[-1] ** -0.5, softcap, dropout)
        blocks.append(block.transpose(1, 2))
    return torch.cat(blocks, 1), None


def _softcapped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float, dropout: float) -> Tensor:
    """Attention with scores squeezed into (-cap, cap) before the mask (Gemma 2)."""
    scores = cap * torch.tanh(q @ k.mT * scale / cap) + mask
    weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
    return F.dropout(weights, dropout) @ v


AttentionInterface.register(ATTENTION, tree_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)  # the masks are made here, tree by tree
