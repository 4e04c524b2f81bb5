"""Mo-SARA's tensors: frozen singular vectors, several sets of singular values, and the router that mixes them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from grainline.adapters._frozen import Frozen, added
from grainline.adapters._spectral import factors
from grainline.adapters._tuner import Change, TunerConfig

_SMALL = 0.02  # standard deviation of what starts random


class MoSaraChange(Change):
    unmergeable = "each token mixes its own singular values"

    def __init__(self, layer: Frozen, config: MoSaraConfig, name: str) -> None:
        super().__init__(layer, config, name)
        rank, like = config.ranks[name], layer.like
        self.register_buffer("mo_sara_U", torch.zeros(layer.outputs, rank, **like))
        self.register_buffer("mo_sara_V", torch.zeros(rank, layer.fan_in, **like))  # V'
        self.mo_sara_lambda = nn.Parameter(_SMALL * torch.randn(config.experts, rank, **like))
        self.mo_sara_v = nn.Parameter(torch.zeros(layer.outputs, **like))
        down = nn.Linear(rank, 1, bias=False, **like)
        up = nn.Linear(1, config.experts, bias=False, **like)
        self.mo_sara_router = nn.Sequential(down, up)
        for linear in (down, up):
            nn.init.normal_(linear.weight, std=_SMALL)
        if not config.stored and not layer.module.weight.is_meta:
            U, _, V = factors(layer.weight_OI, rank)
            self.mo_sara_U, self.mo_sara_V = U.to(**like), V.T.contiguous().to(**like)

    def forward(self, x: Tensor, layer: Frozen) -> Tensor:
        h = layer.read(x, self.mo_sara_V)
        mixed = torch.softmax(self.mo_sara_router(h), dim=-1) @ self.mo_sara_lambda
        return added(layer(x), h * mixed, self.mo_sara_U * self.mo_sara_v.unsqueeze(1))


@dataclasses.dataclass
class MoSaraConfig(TunerConfig):
    tuner = "mo_sara"
    change = MoSaraChange

    ranks: dict[str, int] = dataclasses.field(default_factory=dict)  # dotted name of a module -> k
    experts: int = 5
