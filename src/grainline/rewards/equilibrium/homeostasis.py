r"""Jacobian homeostasis: a loss that makes a network's Jacobian symmetric without looking at the way back.

With F(r) the field less r, J = dF/dr at the free fixed point *without* the activation, A = (J - J^T) / 2 and n units::

    L = E_e [ |J e|^2 - e^T J J e ] / n,   e ~ N(0, I)
      = (tr J^T J - tr J J) / n = 2 |A|^2 / n                       zero if and only if J is symmetric

Noise goes forward twice (J e, then J J e); no transpose is ever applied, so a network can do this by itself
[paper; official code: five draws]. In a network of :mod:`.network`, J = W - I and everything is closed form:

    dL/dW = 4 A / n                                                                              [our algebra]

so forward and feedback weights move towards each other. (The authors also train pooling convolutional nets with it,
where the same loss is about the function, not about single weights; :func:`noisy` serves any map.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grainline.rewards.equilibrium.network import Weights


def asymmetry(weights: Weights) -> Tensor:
    """L, a scalar, exactly."""
    return 2 * _skew(weights.recurrent).square().sum() / len(weights.recurrent)


def asymmetry_gradient(weights: Weights) -> Tensor:
    """(U, U) dL/dW, exactly. Multiply by the wiring where not every connection has its reverse."""
    return 4 * _skew(weights.recurrent) / len(weights.recurrent)


def noisy(unactivated: Callable[[Tensor], Tensor], at: Tensor, *, draws: int = 5, luck: torch.Generator) -> Tensor:
    """L, a scalar, estimated from ``draws`` noise vectors for each row of ``at`` (B, U), differentiable by whatever
    ``unactivated`` (rates (B, U) -> F (B, U)) is made of."""
    total = torch.zeros((), dtype=at.dtype, device=at.device)
    for _ in range(draws):
        noise = torch.randn(at.shape, generator=luck, dtype=at.dtype, device=at.device)
        once = torch.func.jvp(unactivated, (at,), (noise,))[1]
        twice = torch.func.jvp(unactivated, (at,), (once,))[1]
        total = total + (once.square() - noise * twice).sum()
    return total / (draws * at.numel())


def noisy_gradient(weights: Weights, at: Tensor, *, draws: int = 5, luck: torch.Generator) -> Tensor:
    """(U, U) dL/dW from noise alone, as a network would learn it."""
    recurrent = weights.recurrent.detach().requires_grad_()
    loss = noisy(lambda rate: rate @ recurrent.T - rate, at, draws=draws, luck=luck)
    return torch.autograd.grad(loss, recurrent)[0]


def _skew(matrix: Tensor) -> Tensor:
    return (matrix - matrix.T) / 2
