r"""A recurrent network as one system of units, hidden and output alike::

    u = W r + V x + b + beta R^T dL/dz (z),     r = activation(u),     z = R r + c

u (U) the state, r its rates, x (D) the input, z (A) the outputs: no part of the state [official code]. W[i, j] is the
weight from unit j to unit i. In a layered network W has two blocks for every two layers that touch: forward ones under
the diagonal, feedback ones above it. Symmetric W is an energy-based network; nothing here needs it to be.

``+beta`` pushes the outputs up the loss, so the gradients of :mod:`.gradients` are those that one descends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from grainline.rewards.equilibrium.dynamics import Dynamics, Map, Settled, settle

Slope = Callable[[Tensor], Tensor]
"""Outputs (..., B, A), real or complex -> dL/dz of each row's own loss, holomorphic (:mod:`.lessons`)."""


class Weights(NamedTuple):
    """What is learnt; also its gradient, and what multiplies it (:class:`Wiring`)."""

    recurrent: Tensor  # (U, U) W
    input: Tensor  # (U, D) V
    bias: Tensor  # (U,) b
    readout: Tensor  # (A, U) R
    offset: Tensor  # (A,) c

    def to(self, dtype: torch.dtype) -> Weights:
        return Weights(*(part.to(dtype) for part in self))

    def outputs(self, rate: Tensor) -> Tensor:
        """z = R r + c, (..., A)."""
        return rate @ self.readout.T + self.offset


Wiring = Weights
"""Ones where a weight is, zeros where none is."""


def layered(features: int, layers: Sequence[int], outputs: int, *, like: Tensor) -> Wiring:
    """The wiring of features -> layers[0] <-> layers[1] <-> ...; the last layer is read out."""
    layer_U = torch.repeat_interleave(torch.arange(len(layers)), torch.tensor(layers)).to(like.device)
    neighbours_UU = (layer_U[:, None] - layer_U[None, :]).abs() == 1
    first_UD = (layer_U == 0)[:, None].expand(-1, features)
    last_AU = (layer_U == len(layers) - 1)[None, :].expand(outputs, -1)
    ones = torch.ones(len(layer_U) + outputs, dtype=like.dtype, device=like.device).split((len(layer_U), outputs))
    return Wiring(neighbours_UU.to(like.dtype), first_UD.to(like.dtype), ones[0], last_AU.to(like.dtype), ones[1])


def random(
    wiring: Wiring, *, angle: float = 90.0, gain: float = 0.5, input_gain: float = 1.0, seed: int = 0
) -> Weights:
    """Weights N(0, gain^2 / fan-in), feedback at ``angle`` degrees from the forward weights; biases are zero::

        feedback = sin(angle) * (a draw of its own) + cos(angle) * forward^T                       [official code]

    0 degrees is a symmetric network, 90 one whose feedback knows nothing of the way forward.
    """
    luck = torch.Generator().manual_seed(seed)

    def draw(mask: Tensor, scale: float) -> Tensor:
        free = torch.randn(mask.shape, generator=luck, dtype=torch.float64).to(mask)
        return scale * mask * free / mask.sum(1, keepdim=True).clamp(min=1).sqrt()

    input_UD, readout_AU = draw(wiring.input, input_gain), draw(wiring.readout, 1.0)
    forward_UU = draw(wiring.recurrent.tril(), gain)
    own_UU = draw(wiring.recurrent.triu(), gain)
    turn = math.radians(angle)
    recurrent_UU = forward_UU + math.sin(turn) * own_UU + math.cos(turn) * forward_UU.T * wiring.recurrent.triu()
    return Weights(recurrent_UU, input_UD, torch.zeros_like(wiring.bias), readout_AU, torch.zeros_like(wiring.offset))


def field(weights: Weights, drive: Tensor, dynamics: Dynamics, push: Map | None = None) -> Map:
    """u -> W r + drive + push(r); the drive V x + b never changes while a network settles."""

    def towards(u: Tensor) -> Tensor:
        rate = dynamics.rate(u)
        unmoved = rate @ weights.recurrent.T + drive
        return unmoved if push is None else unmoved + push(rate)

    return towards


def drive(weights: Weights, inputs_BD: Tensor) -> Tensor:
    """(B, U) V x + b."""
    return inputs_BD @ weights.input.T + weights.bias


def free(weights: Weights, inputs_BD: Tensor, dynamics: Dynamics) -> Settled:
    """The free phase, beta = 0: u* (B, U) from u = 0.

    Raises:
        NotSettled: see :func:`~grainline.rewards.equilibrium.dynamics.settle`.
    """
    driven = drive(weights, inputs_BD)
    return settle(field(weights, driven, dynamics), torch.zeros_like(driven), dynamics)


def nudged(
    weights: Weights, inputs_BD: Tensor, slope: Slope, start_BU: Tensor, beta_K: Tensor, dynamics: Dynamics
) -> Settled:
    """The nudged phases, one for each teaching signal, together: u*(beta) (K, B, U) from the free state.

    ``slope`` is asked at the outputs of the nudged state, which are complex where ``beta_K`` is.
    """
    own = weights.to(beta_K.dtype)
    beta_K11 = beta_K[:, None, None]

    def push(rate: Tensor) -> Tensor:
        return beta_K11 * (slope(own.outputs(rate)) @ own.readout)

    start = start_BU.to(beta_K.dtype).expand(len(beta_K), *start_BU.shape)
    driven = drive(weights, inputs_BD).to(beta_K.dtype)
    return settle(field(own, driven, dynamics, push), start, dynamics)
