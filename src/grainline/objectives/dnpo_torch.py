"""DNPO's noise: how much likelier a random spread of the logits makes the rejected tokens under the reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from grainline.types import Dims, Seen

LOGITS_AT_ONCE = 2**23
"""Elements of the largest logits chunk; four of its size live at a time."""


class Noise(nn.Module):
    """sigma = W h + b for each logit, both 0 at the start. Silent in evaluation.

    ``shift`` (B, T) is log p_noisy - log p of the token under the reference, nats; ``variance`` (B, T) the mean of
    sigma^2 over the vocabulary. Both are 0 in the chosen rows. Chunks are computed anew in backward, with the same
    draws, so nothing of vocabulary size is kept.
    """

    role = "noise"
    names = ("shift", "variance")

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.spread = nn.Linear(dims.hidden, dims.vocabulary)
        nn.init.zeros_(self.spread.weight)
        nn.init.zeros_(self.spread.bias)

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        reference = seen.reference
        assert reference.hidden is not None
        where = reference.mask.clone()
        where[: len(where) // 2] = False
        hidden_nH, target_n = reference.hidden[:, :, -1][where].detach(), seen.target[where]
        found = {name: torch.zeros_like(reference.token) for name in self.names}
        if not self.training or not len(target_n):
            return found
        rows = max(1, LOGITS_AT_ONCE // self.spread.out_features)
        parts = [
            checkpoint(self._noisy, seen, h, t, use_reentrant=False)
            for h, t in zip(hidden_nH.split(rows), target_n.split(rows), strict=True)
        ]
        for name, value in zip(self.names, zip(*parts, strict=True), strict=True):
            found[name] = found[name].masked_scatter(where, torch.cat(value).to(found[name].dtype))
        return found

    def _noisy(self, seen: Seen, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = seen.logits(hidden)
        sigma = self.spread(hidden.to(self.spread.weight.dtype))
        shift = noisy_logprob(logits, sigma, torch.randn_like(sigma), target) - noisy_logprob(logits, 0, 0, target)
        return shift, sigma.square().mean(-1)


def noisy_logprob(logits: Tensor, sigma: Tensor | float, epsilon: Tensor | float, target: Tensor) -> Tensor:
    """log p(target) under softmax(z + sigma * epsilon), nats."""
    return -nn.functional.cross_entropy(logits + sigma * epsilon, target, reduction="none")
