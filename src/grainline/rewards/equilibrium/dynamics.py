r"""Relaxation: how a network comes to rest, and what is said when it does not.

The state u moves towards what the network's field makes of it, a step h at a time::

    u  <-  u + h (field(u) - u)                          (rows of a batch do not see each other)

until |field(u) - u| <= tolerance for every unit of every row. A fixed point u* = field(u*) does not depend on h. With
h = 1, as the authors step [official code], units that inhibit each other swing for ever once weights have grown;
h <= 0.5 lets them settle [our experience]. As weights grow, some rows settle slowly: near the point where a second
state of rest appears, the largest eigenvalue l of D W (D the slopes of the activation at rest) is just below 1, and a
digit takes 2.3 / (h (1 - l)) steps, so ``most`` is generous. Of a symmetric W every row settles in the end; of another
some may circle for ever, whatever h. Where nothing settles there is no gradient to speak of, so this is an error, or,
if the caller says so, a residual that stands in the result; it is never passed over.

Activations are holomorphic: they are evaluated at complex states (:mod:`.contour`). A ReLU is not, nor is a maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from grainline.errors import TrainingError
from grainline.types import spec

Map = Callable[[Tensor], Tensor]
"""State (..., U) -> what it is drawn to (..., U)."""


class NotSettled(TrainingError):
    """A network did not come to rest."""


def logistic(u: Tensor) -> Tensor:
    """1 / (1 + exp(-4 u + 2)): slope 1 at u = 1/2; poles at u = 1/2 + i pi/4 (2 k + 1) [official code, dense nets]."""
    return torch.sigmoid(4 * u - 2)


def dsilu(u: Tensor) -> Tensor:
    """u/2 s(u) + (1 - u/2) s(u - 2), s(z) = 1 / (1 + exp(-z)) [official code, convolutional nets]."""
    return 0.5 * u * torch.sigmoid(u) + (1 - 0.5 * u) * torch.sigmoid(u - 2)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"logistic": logistic, "dsilu": dsilu, "tanh": torch.tanh}


@spec
class Dynamics:
    """How a network comes to rest."""

    activation: Literal["logistic", "dsilu", "tanh"] = "logistic"
    """Rate of a unit, r = activation(u)."""
    step: float = Field(default=0.5, gt=0, le=1)
    """Share of the way to the field in one step, h."""
    tolerance: float = Field(default=1e-9, gt=0)
    """Largest |field(u) - u| of a unit at rest, in units of u."""
    most: int = Field(default=10_000, ge=1)
    """Steps after which a row that still moves has not settled."""
    strict: bool = True
    """Raise where a row has not settled; false: its residual stands in the result, for the caller to judge."""

    def rate(self, u: Tensor) -> Tensor:
        """r = activation(u), elementwise; u may be complex."""
        return ACTIVATIONS[self.activation](u)

    def slope(self, u: Tensor) -> Tensor:
        """dr/du, elementwise."""
        return torch.func.jvp(self.rate, (u,), (torch.ones_like(u),))[1]


class Settled(NamedTuple):
    """Where a batch came to rest."""

    state: Tensor  # (..., U) u*
    residual: Tensor  # (...) largest |field(u) - u| of each row
    steps: int  # taken

    def at_rest(self, dynamics: Dynamics) -> Tensor:
        """(...) bool: which rows did settle. NaN is not at rest."""
        return self.residual <= dynamics.tolerance


def settle(field: Map, start: Tensor, dynamics: Dynamics) -> Settled:
    """Relax ``start`` (..., U) until all rows rest, or ``dynamics.most`` steps were taken.

    Raises:
        NotSettled: some row still moves (or is no number any more), and ``dynamics.strict``.
    """
    state, steps = start, 0
    while True:
        change = field(state) - state
        settled = Settled(state, change.abs().amax(-1), steps)
        if bool(settled.at_rest(dynamics).all()):
            return settled
        if steps == dynamics.most:
            break
        state, steps = state + dynamics.step * change, steps + 1
    if dynamics.strict:
        moving = ~settled.at_rest(dynamics)
        raise NotSettled(
            f"{int(moving.sum())} of {moving.numel()} states still move after {steps} steps, the fastest by"
            f" {float(settled.residual.max()):.2g} where {dynamics.tolerance:.2g} is allowed",
            instead="Take a smaller step (Dynamics.step), more of them (most), a weaker teaching signal, or smaller"
            " recurrent weights.",
        )
    return settled
