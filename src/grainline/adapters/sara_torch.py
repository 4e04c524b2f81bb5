"""SARA's tensors: a low-rank change with a gate in its middle."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from grainline.adapters._frozen import Frozen, added
from grainline.adapters._spectral import factors
from grainline.adapters._tuner import Change, TunerConfig


class SaraChange(Change):
    def __init__(self, layer: Frozen, config: SaraConfig, name: str) -> None:
        super().__init__(layer, config, name)
        rank = config.ranks[name]
        self.sara_V = nn.Parameter(torch.empty(rank, layer.fan_in, **layer.like))  # V', as LoRA's A
        self.sara_lambda = nn.Parameter(torch.ones(rank, **layer.like))
        self.sara_U = nn.Parameter(torch.zeros(layer.outputs, rank, **layer.like))
        nn.init.kaiming_uniform_(self.sara_V, a=math.sqrt(5))
        if config.init == "svd" and not config.stored and not self.sara_V.is_meta:
            U, _, V = factors(layer.weight_OI, rank)
            self.sara_U.data, self.sara_V.data = U.to(self.sara_U), V.T.contiguous().to(self.sara_V)
            nn.init.zeros_(self.sara_lambda)

    def forward(self, x: Tensor, layer: Frozen) -> Tensor:
        return added(layer(x), layer.read(x, self.sara_V), self.sara_U * self.sara_lambda)

    def merged(self, weight_OI: Tensor) -> Tensor:
        return weight_OI + (self.sara_U * self.sara_lambda) @ self.sara_V


@dataclasses.dataclass
class SaraConfig(TunerConfig):
    tuner = "sara"
    change = SaraChange

    ranks: dict[str, int] = dataclasses.field(default_factory=dict)  # dotted name of a module -> k
    init: str = "default"
