"""RoPO's tensors: a rotation of the inputs, and a positive length for each output.

Two ways to the same output. By the input: turn it, run the frozen layer, scale what comes out; asks nothing of the
layer but to be run. By the weight, where that is a plain matrix and there are enough tokens: turn and scale its rows,
and make one product with them. Letters: ``T`` rows of x, ``O`` outputs, ``I`` inputs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from grainline.adapters._frozen import Frozen
from grainline.adapters._givens import Givens, Pairs
from grainline.adapters._orthogonal import HouseholderPair
from grainline.adapters._tuner import Change, TunerConfig, under_autocast

OUTPUTS_OF_A_TOKEN = 1
"""The weight is turned while it has at most this many rows for each row of x: either way turns once forward and once
backward, but by the weight no scaled output is made, and nothing is kept beside x and y."""


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
        rotation, bias = self.ropo_rotation, layer.bias
        if by_weight(x, layer):
            factors = rotation.factors()
            return _ByWeight.apply(x, layer.module.weight, bias, self.ropo_magnitude, type(rotation), *factors)
        y = layer(rotation.transposed(x))
        if self.ropo_magnitude is None:
            return y
        ratio = self.ropo_magnitude.exp()  # m / |w|
        # The layer has added its bias, which has no length to be scaled. At ratio 1 this is y, bit for bit.
        return y * ratio if bias is None else torch.addcmul(bias * (1 - ratio), y, ratio)

    def merged(self, weight_OI: Tensor) -> Tensor:
        turned = self._turned(weight_OI.unflatten(1, (self.ropo_rotation.width, -1)).mT).mT.flatten(1)
        return turned if self.ropo_magnitude is None else turned * self.ropo_magnitude.exp().unsqueeze(1)

    def _turned(self, rows: Tensor) -> Tensor:
        """R w for each w on the last axis: R = H B F."""
        rows = self.ropo_rotation(rows)
        return rows if self.ropo_reflections is None else self.ropo_reflections(rows)


def by_weight(x: Tensor, layer: Frozen) -> bool:
    """A frozen matrix in the change's own dtype (else turning it would round it), no autocast, and tokens enough."""
    weight = layer.module.weight
    plain = type(layer.module) is nn.Linear and type(weight) is nn.Parameter and weight.dtype == x.dtype
    frozen = not any(p.requires_grad for p in layer.module.parameters())
    enough = layer.outputs * layer.inputs <= OUTPUTS_OF_A_TOKEN * x.numel()
    return plain and frozen and enough and not under_autocast(x)


class _ByWeight(torch.autograd.Function):
    """y = x W' + b with W' = diag(m) W R' formed anew in each direction; m is given by the logarithm of its ratio::

        dx = dy W',   dlog m_o = sum_t dy_to (y_to - b_o),   R's own from x and dx

    so that no token is turned or scaled. ``rotation`` is the class, ``factors`` what its angles make.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_OI: Tensor,
        bias: Tensor | None,
        log_m: Tensor | None,
        rotation: Any,
        *factors: Tensor,
    ) -> Tensor:
        x_TI = x.reshape(-1, x.shape[-1])
        y_TO = F.linear(x_TI, _changed(weight_OI, log_m, rotation, factors), bias)
        ctx.rotation = rotation
        ctx.save_for_backward(x_TI, None if log_m is None else y_TO, weight_OI, bias, log_m, *factors)
        return y_TO.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        x_TI, y_TO, weight_OI, bias, log_m, *factors = ctx.saved_tensors
        outer_TO = outer.reshape(len(x_TI), -1)
        of_x = outer_TO @ _changed(weight_OI, log_m, ctx.rotation, factors)
        of_m = None
        if y_TO is not None:
            of_m = (outer_TO * (y_TO if bias is None else y_TO - bias)).sum(0)
        of_factors = ctx.rotation.of_factors(x_TI, of_x, *factors)
        return of_x.view(*outer.shape[:-1], -1), None, None, of_m, None, *of_factors


def _changed(weight_OI: Tensor, log_m: Tensor | None, rotation: Any, factors: Any) -> Tensor:
    turned = rotation.turn(weight_OI, *factors)
    return turned if log_m is None else turned.mul_(log_m.exp().unsqueeze(1))


@dataclasses.dataclass
class RopoConfig(TunerConfig):
    tuner = "ropo"
    change = RopoChange

    granularity: str = "givens"
    magnitude: bool = True
