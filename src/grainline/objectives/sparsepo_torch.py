"""Mask modules of SparsePO: hidden states of the reference -> how much each token counts, never below 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from grainline.types import Dims, Seen

SPREAD = 0.02
"""Standard deviation of weights at the start, that of the models which host the masks in the authors' release."""


class Masks(nn.Module):
    """One mask for each of ``names``; no gradient reaches the hidden states."""

    role = "mask"

    def __init__(self, dims: Dims, names: Sequence[str], *, all_layers: bool) -> None:
        super().__init__()
        self.names = tuple(names)
        self.masks = nn.ModuleDict({name: (AllLayers if all_layers else LastLayer)(dims) for name in names})

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        assert seen.reference.hidden is not None
        weight = next(self.parameters())
        hidden_BTLH = seen.reference.hidden.detach().to(weight.dtype)
        return {name: mask(hidden_BTLH) * seen.reference.mask for name, mask in self.masks.items()}


class LastLayer(nn.Module):
    """simple_last: m = ReLU(w . h + b), h the final hidden state."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.score = nn.Linear(dims.hidden, 1)
        nn.init.normal_(self.score.weight, std=SPREAD)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden_BTLH: Tensor) -> Tensor:
        return self.score(hidden_BTLH[:, :, -1]).squeeze(-1).relu()


class AllLayers(nn.Module):
    """simple_all: m = ReLU(mixer . z), z_l = ReLU(w_l . LayerNorm(h_l) + b_l); one LayerNorm for all layers.

    The mixer starts positive: where all its weights were negative, every mask would be 0 and stay 0.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dims.hidden)
        self.weight = nn.Parameter(torch.randn(dims.layers, dims.hidden) * SPREAD)
        self.bias = nn.Parameter(torch.zeros(dims.layers))
        self.mixer = nn.Parameter(torch.randn(1, dims.layers).abs() * SPREAD)

    def forward(self, hidden_BTLH: Tensor) -> Tensor:
        z_BTL = ((self.norm(hidden_BTLH) * self.weight).sum(-1) + self.bias).relu()
        return (z_BTL @ self.mixer[0]).relu()
