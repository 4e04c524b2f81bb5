"""RoPO's tensors: a rotation of the inputs, and a positive length for each output."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from grainline.adapters._frozen import Frozen
from grainline.adapters._givens import Givens, Pairs
from grainline.adapters._orthogonal import HouseholderPair
from grainline.adapters._tuner import Change, TunerConfig


class RopoChange(Change):
    def __init__(self, layer: Frozen, config: RopoConfig, name: str) -> None:
        super().__init__(layer, config, name)
        width = layer.inputs  # of a convolution: its channels, so that R (x) I turns the whole kernel
        kind = Pairs if config.granularity == "pairs" else Givens
        self.ropo_rotation = kind(width, **layer.like)
        whole = config.granularity == "givens+householder"
        self.ropo_reflections = HouseholderPair(width, **layer.like) if whole else None
        self.ropo_magnitude = nn.Parameter(torch.zeros(layer.outputs, **layer.like)) if config.magnitude else None

    def forward(self, x: Tensor, layer: Frozen) -> Tensor:
        if self.ropo_reflections is not None:
            x = self.ropo_reflections.transposed(x)
        y = layer(self.ropo_rotation.transposed(x))
        if self.ropo_magnitude is None:
            return y
        ratio = self.ropo_magnitude.exp()  # m / |w|
        # The layer has added its bias, which has no length to be scaled. At ratio 1 this is y, bit for bit.
        return y * ratio if layer.bias is None else torch.addcmul(layer.bias * (1 - ratio), y, ratio)

    def merged(self, weight_OI: Tensor) -> Tensor:
        turned = self._turned(weight_OI.unflatten(1, (self.ropo_rotation.width, -1)).mT).mT.flatten(1)
        return turned if self.ropo_magnitude is None else turned * self.ropo_magnitude.exp().unsqueeze(1)

    def _turned(self, rows: Tensor) -> Tensor:
        """R w for each w on the last axis: R = H B F."""
        rows = self.ropo_rotation(rows)
        return rows if self.ropo_reflections is None else self.ropo_reflections(rows)


@dataclasses.dataclass
class RopoConfig(TunerConfig):
    tuner = "ropo"
    change = RopoChange

    granularity: str = "givens"
    magnitude: bool = True
