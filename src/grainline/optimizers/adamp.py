r"""AdamP: Adam whose step loses what points along a weight that looks scale-invariant.

Heo et al. 2021, arXiv:2006.08217, Algorithm 2. Where only a weight's direction matters (it is normalised afterwards),
momentum makes its norm grow, and with it the effective step shrinks. With Adam's move :math:`p = \hat m / (\sqrt{\hat
v} + \epsilon)` and :math:`\hat w = w / (\|w\| + \epsilon)`, for each row of a matrix, or else for the whole:

.. math:: p \leftarrow p - (\hat w \cdot p)\,\hat w
          \quad\text{if}\quad \max |\cos(g, w)| < \delta / \sqrt{\dim w}

and where that fires, decay is multiplied by ``wd_ratio``. Equal to the authors' release (``adamp`` 0.3.0) to 1e-6 over
200 steps. As there, all rows must pass or none is projected by rows; vectors are never projected; a weight of zeros
passes, and its move stays Adam's. Unlike there, non-contiguous and sharded tensors work, half-precision cosines are
taken in float32, and (as in all of this room) vectors do not decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from grainline.optimizers._parts import ByRole, Memory, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from grainline.optimizers._parts_torch import Part


@spec
class AdamP:
    paper: ClassVar[str] = "arXiv:2006.08217"

    lr: float = Field(1e-4, gt=0)
    """Peak learning rate: about how far a weight moves in one step. The release's default is 1e-3."""
    betas: tuple[Memory, Memory] = (0.9, 0.999)
    """Memory of the gradient's mean and of its square, per step, in [0, 1)."""
    eps: float = Field(1e-8, gt=0)
    """Added to the gradient's size and to a weight's norm, and the least norm in a cosine."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each matrix that vanishes in a step, per unit of learning rate."""
    delta: float = Field(0.1, ge=0)
    """How nearly at right angles gradient and weight must be, times the root of the dimension; 0 is AdamW."""
    wd_ratio: float = Field(0.1, ge=0, le=1)
    """Factor on the decay of a matrix that is projected."""
    nesterov: bool = False
    """Look one step ahead: the mean counts this gradient once more."""
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
        options = {name: getattr(self, name) for name in ("betas", "eps", "delta", "wd_ratio", "nesterov")}
        return ByParts(groups, options, keeps=("exp_avg", "exp_avg_sq"), rule=step)


def step(part: Part, group: dict[str, Any]) -> None:
    """One step, in place. Operations stand in the release's order, so that numbers are the release's."""
    import torch

    from grainline.optimizers._parts_torch import average_, decay_, project_

    beta1, beta2 = group["betas"]
    means = average_(part, "exp_avg", beta1)
    sizes = torch._foreach_sqrt(average_(part, "exp_avg_sq", beta2, squares=True))
    torch._foreach_div_(sizes, math.sqrt(1 - beta2**part.step))
    torch._foreach_add_(sizes, group["eps"])
    if group["nesterov"]:
        means = list(torch._foreach_mul(means, beta1))
        torch._foreach_add_(means, part.grads, alpha=1 - beta1)
    moves = list(torch._foreach_div(means, sizes))
    projected = project_(moves, part, delta=group["delta"], eps=group["eps"])
    decay_(part, group, [group["wd_ratio"] if fires else 1.0 for fires in projected])
    torch._foreach_add_(part.params, moves, alpha=-group["lr"] / (1 - beta1**part.step))
