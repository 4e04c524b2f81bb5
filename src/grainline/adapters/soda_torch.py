"""SODA's tensors. ``N``: entries of the spectrum that may shift."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from grainline.adapters._frozen import Frozen, added
from grainline.adapters._orthogonal import Cayley, Kronecker, kronecker_sizes
from grainline.adapters._spectral import factors
from grainline.adapters._tuner import Change, TunerConfig


class SodaChange(Change):
    basis_NI: Tensor
    values_N: Tensor
    left_ON: Tensor

    def __init__(self, layer: Frozen, config: SodaConfig, name: str) -> None:
        super().__init__(layer, config, name)
        least, like = min(layer.outputs, layer.fan_in), layer.like
        count = min(config.rank or least, least)
        self.triangular, self.whole = config.form == "qr", count == least
        width = layer.inputs  # of a convolution: its channels, so that R (x) I turns the whole kernel
        self.soda_rotation = Kronecker([Cayley(size, **like) for size in kronecker_sizes(width)])
        self.soda_delta = nn.Parameter(torch.zeros(count, **like))
        self.register_buffer("basis_NI", torch.zeros(count, layer.fan_in, **like))
        if not self.triangular:
            self.register_buffer("values_N", torch.zeros(count, **like))
            self.register_buffer("left_ON", torch.zeros(layer.outputs, count, **like))
        if not config.stored and not self.basis_NI.is_meta:
            self._decompose(layer.weight_OI)

    def _decompose(self, weight_OI: Tensor) -> None:
        if self.triangular:
            basis, upper = torch.linalg.qr(weight_OI.T.to(torch.float64))
            sign = torch.where(upper.diagonal() < 0, -1.0, 1.0)
            self.basis_NI.copy_((basis * sign).T)
            return
        left, values, right = factors(weight_OI, len(self.soda_delta))
        for buffer, found in ((self.left_ON, left), (self.values_N, values), (self.basis_NI, right.T)):
            buffer.copy_(found)

    def forward(self, x: Tensor, layer: Frozen) -> Tensor:
        x = self.soda_rotation.transposed(x)
        inner = layer.read(x, self.basis_NI)
        if self.triangular:
            y = layer(x)
            return y + nn.functional.pad(inner * self.soda_delta, (0, y.shape[-1] - len(self.soda_delta)))
        if self.whole:  # the factors say all that the weight says, in fewer products than both together
            y = nn.functional.linear(inner * self._shifted(), self.left_ON)
            return y if layer.bias is None else y + layer.bias
        return added(layer(x), inner, self.left_ON * (self._shifted() - self.values_N))

    def merged(self, weight_OI: Tensor) -> Tensor:
        if self.triangular:
            shifted = weight_OI.clone()
            shifted[: len(self.soda_delta)] += self.soda_delta.unsqueeze(1) * self.basis_NI
        else:
            shifted = weight_OI + (self.left_ON * (self._shifted() - self.values_N)) @ self.basis_NI
        return self.soda_rotation(shifted.unflatten(1, (self.soda_rotation.width, -1)).mT).mT.flatten(1)

    def _shifted(self) -> Tensor:
        return torch.relu(self.values_N + self.soda_delta)


@dataclasses.dataclass
class SodaConfig(TunerConfig):
    tuner = "soda"
    change = SodaChange

    form: str = "svd"
    rank: int | None = None
