r"""How the loss feels every unit, four ways, and the gradient that follows from it.

With D = diag(dr/du) at the free fixed point and g = R^T dL/dz (both by row)::

    estimate   1/N sum_t r(beta_t) / beta_t                generalised holomorphic equilibrium propagation
    exact      dr/dbeta = (I - D W)^{-1} D g               what the estimate becomes as |beta| -> 0 or N -> infinity
    adjoint    delta    = (I - D W^T)^{-1} D g             the true gradient: recurrent backpropagation, implicit
                                                           differentiation

``exact`` equals ``adjoint`` if and only if W is symmetric. Else, with J = W - D^{-1} = S + A, symmetric and
antisymmetric part,

    dr/dbeta = J^{-1} J^T delta  ~  delta - 2 S^{-1} A delta                                             [secondary]

which is why :mod:`.homeostasis` makes A small. From an error e (U) of each row, the mean over rows of

    dL/dW = e r^T,   dL/dV = e x^T,   dL/db = e,   dL/dR = dL/dz r^T,   dL/dc = dL/dz

The readout lies behind the recurrent part and is not nudged: its gradient is the ordinary one [official code].
Formulas for ``exact`` and ``adjoint`` are our algebra; the tests hold them against autograd through the relaxation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from grainline.rewards.equilibrium.contour import Teaching, circle, derivative, excess
from grainline.rewards.equilibrium.dynamics import Dynamics, Settled
from grainline.rewards.equilibrium.network import Slope, Weights, Wiring, nudged


class Estimate(NamedTuple):
    """What N nudged phases say."""

    error: Tensor  # (B, U) of dr/dbeta
    excess: Tensor  # (B, U) mean rate over the circle less the free rate: far from 0, the circle is too wide
    residual: Tensor  # (B,) the worst of the row's nudged phases


def estimate(
    weights: Weights, inputs_BD: Tensor, slope: Slope, free: Settled, teaching: Teaching, dynamics: Dynamics
) -> Estimate:
    """(B, U) of dr/dbeta, from nudged phases alone. A small teaching signal asks for double precision.

    Raises:
        NotSettled: see :func:`~grainline.rewards.equilibrium.dynamics.settle`.
    """
    phases = nudged(weights, inputs_BD, slope, free.state, circle(teaching, free.state).beta_K, dynamics)
    rate_BU, rate_KBU = dynamics.rate(free.state), dynamics.rate(phases.state)
    return Estimate(
        derivative(rate_KBU, rate_BU, teaching), excess(rate_KBU, rate_BU, teaching), phases.residual.amax(0)
    )


def exact(weights: Weights, slope: Slope, free: Settled, dynamics: Dynamics) -> Tensor:
    """(B, U) dr/dbeta at beta = 0, by solving for it."""
    return _solved(weights.recurrent, weights, slope, free, dynamics)


def adjoint(weights: Weights, slope: Slope, free: Settled, dynamics: Dynamics) -> Tensor:
    """(B, U) delta, by solving for it: the error vector of backpropagation."""
    return _solved(weights.recurrent.T, weights, slope, free, dynamics)


def _solved(matrix_UU: Tensor, weights: Weights, slope: Slope, free: Settled, dynamics: Dynamics) -> Tensor:
    """(I - D M)^{-1} D g."""
    gain_BU = dynamics.slope(free.state)
    felt_BU = gain_BU * (slope(weights.outputs(dynamics.rate(free.state))) @ weights.readout)
    system_BUU = torch.eye(len(matrix_UU)).to(matrix_UU) - gain_BU[..., None] * matrix_UU
    return torch.linalg.solve(system_BUU, felt_BU)


def gradient(wiring: Wiring, inputs_BD: Tensor, rate_BU: Tensor, error_BU: Tensor, felt_BA: Tensor) -> Weights:
    """The gradient of the mean loss over rows, given the error of every unit and dL/dz of every row. It is local: the
    gradient of a weight reads what stands at its two ends."""
    found = Weights(
        error_BU.T @ rate_BU / len(rate_BU),
        error_BU.T @ inputs_BD / len(rate_BU),
        error_BU.mean(0),
        felt_BA.T @ rate_BU / len(rate_BU),
        felt_BA.mean(0),
    )
    return Weights(*(part * mask for part, mask in zip(found, wiring, strict=True)))


def tied(gradient: Weights) -> Weights:
    """The gradient of weights that are shared, W = W^T: both uses of one count. Local updates of two weights that began
    alike drift apart, so a symmetric network must be tied."""
    return gradient._replace(recurrent=gradient.recurrent + gradient.recurrent.T)
