r"""SGDP: momentum SGD whose step loses what points along a weight that looks scale-invariant.

Heo et al. 2021, arXiv:2006.08217, Algorithm 1. With the momentum :math:`b \leftarrow \mu b + g` as move :math:`p`, and
for each row of a matrix, or else for the whole, :math:`\hat w = w / (\|w\| + \epsilon)`:

.. math:: p \leftarrow p - (\hat w \cdot p)\,\hat w
          \quad\text{if}\quad \max |\cos(g, w)| < \delta / \sqrt{\dim w}

Decay is decoupled: a weight shrinks by :math:`\eta\lambda / (1 - \mu)` in a step, times ``wd_ratio`` where the
projection fires. Equal to the authors' release (``adamp`` 0.3.0) to 1e-6 over 200 steps; the edge cases are AdamP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from grainline.optimizers._parts import ByRole, Memory, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from grainline.optimizers._parts_torch import Part


@spec
class SGDP:
    paper: ClassVar[str] = "arXiv:2006.08217"

    lr: float = Field(1e-2, gt=0)
    """Peak learning rate, per unit of gradient. The release has no default."""
    momentum: Memory = 0.9
    """Share of the last move that is made again, in [0, 1). The release's default is 0."""
    dampening: float = Field(0.0, ge=0, lt=1)
    """Share of the gradient that does not enter the momentum (at the first step either, unlike torch's SGD)."""
    nesterov: bool = False
    """Look one step ahead: the move is the gradient and the momentum together."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each matrix that vanishes in a step, per unit of learning rate and of 1 / (1 - momentum)."""
    delta: float = Field(0.1, ge=0)
    """How nearly at right angles gradient and weight must be, times the root of the dimension; 0 never projects."""
    wd_ratio: float = Field(0.1, ge=0, le=1)
    """Factor on the decay of a matrix that is projected."""
    eps: float = Field(1e-8, gt=0)
    """Added to a weight's norm, and the least norm in a cosine."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """The optimizer, one group for each role's matrices and one for its vectors.

        Raises:
            SpecError: ``by_role`` refuses a role's rate.
        """
        from grainline.optimizers._parts_torch import ByParts

        groups = by_role(parameters, self)
        named = ("momentum", "dampening", "nesterov", "delta", "wd_ratio", "eps")
        return ByParts(groups, {name: getattr(self, name) for name in named}, keeps=("momentum",), rule=step)


def step(part: Part, group: dict[str, Any]) -> None:
    """One step, in place. Operations stand in the release's order, so that numbers are the release's."""
    import torch

    from grainline.optimizers._parts_torch import decay_, project_, scale_

    momentum = group["momentum"]
    moves = part.kept("momentum")
    scale_(moves, momentum)
    torch._foreach_add_(moves, part.grads, alpha=1 - group["dampening"])
    if group["nesterov"]:
        moves = list(torch._foreach_mul(moves, momentum))
        torch._foreach_add_(moves, part.grads)
    # Without nesterov the release projects the momentum itself: what is taken away is not remembered either.
    projected = project_(moves, part, delta=group["delta"], eps=group["eps"])
    shares = [group["wd_ratio"] if fires else 1.0 for fires in projected]
    decay_(part, group, [share / (1 - momentum) for share in shares])
    torch._foreach_add_(part.params, moves, alpha=-group["lr"])
