r"""RAD: Adam for relativistic particles, whose speed limit softens from a bound on steps to plain momentum.

Lyu et al. 2024, arXiv:2412.02291 (IEEE TNNLS 36(6)). Weights are particles with kinetic energy :math:`c\sqrt{p^2 + m^2
c^2}` that lose energy; a conformal symplectic discretisation gives, with Adam's running means m and v,

.. math:: \theta \leftarrow (1-\eta\lambda)\,\theta
          - \eta\,\frac{\sqrt{1-\beta_2^k}}{1-\beta_1^k}\,\frac{m}{\sqrt{\delta^2 v + \zeta_k}},
          \qquad \zeta_k = \mathrm{clip}(e^{40(k/K-1)}, 10^{-16}, 1)

at order 1; order 2 takes half the sum of this and of the same with :math:`\zeta_k/\beta_1^2`. K is the number of steps
that the run plans. Equal to the authors' release (``pytorch-rad`` 0.2.1) to 1e-6 over 200 steps. The release's default
is a fixed :math:`\zeta = 10^{-16}`, which is Adam; ours is the paper's schedule, with ``zeta_cap``, which is ours:
without it zeta ends at 1, far above an adapter's squared gradients, and steps shrink by orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from grainline.errors import SpecError
from grainline.optimizers._parts import ByRole, Memory, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from grainline.optimizers._parts_torch import Part


@spec
class RAD:
    needs: ClassVar[frozenset[str]] = frozenset({"steps"})
    paper: ClassVar[str] = "arXiv:2412.02291"

    lr: float = Field(1e-4, gt=0)
    """Peak learning rate: about delta times as far as a weight moves in one step. The release's default is 1e-3."""
    betas: tuple[Memory, Memory] = (0.9, 0.999)
    """Memory of the gradient's mean and of its square, per step, in [0, 1)."""
    delta: float = Field(1.0, gt=0)
    """Inverse of the speed limit: twice the delta, half the longest step."""
    order: Literal[1, 2] = 1
    """Of the discretisation: 2 is more accurate and a little slower."""
    zeta: Literal["schedule"] | Annotated[float, Field(gt=0)] = "schedule"
    """Squared gradient below which a step is proportional to its gradient: the paper's schedule, or fixed (1e-16)."""
    zeta_cap: float = Field(1.0, ge=0)
    """Most that the schedule's zeta may be, in units of delta^2 times the tensor's mean of v; 0 = no cap, the paper."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each matrix that vanishes in a step, per unit of learning rate."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged], *, steps: int | None = None) -> Optimizer:
        """The optimizer, for a run of ``steps`` optimizer steps.

        Raises:
            SpecError: ``by_role`` refuses a role's rate, or the schedule's length is not known.
        """
        from grainline.optimizers._parts_torch import ByParts

        if self.zeta == "schedule" and steps is None:
            raise SpecError("the schedule needs the number of steps.", where="rad:zeta", instead="Pass steps=...")
        groups = by_role(parameters, self)
        options = {name: getattr(self, name) for name in ("betas", "delta", "order", "zeta", "zeta_cap")}
        # The length stands in no group: a resumed run follows its new plan, as its learning rate does.
        return ByParts(groups, options, keeps=("exp_avg", "exp_avg_sq"), rule=partial(step, steps=steps or 0))


def scheduled(k: int, steps: int) -> float:
    """The schedule's zeta at step ``k`` (1-based) of ``steps``: 1e-16 at first, 1 at the end and beyond."""
    return max(1e-16, math.exp(min(0.0, 40 * (k / steps - 1))))


def step(part: Part, group: dict[str, Any], *, steps: int) -> None:
    """One step, in place. Operations stand in the release's order, so that numbers are the release's."""
    import torch

    from grainline.optimizers._parts_torch import average_, decay_, scale_

    beta1, beta2 = group["betas"]
    decay_(part, group, [1.0] * len(part.params))
    means = average_(part, "exp_avg", beta1)
    squares = average_(part, "exp_avg_sq", beta2, squares=True)
    zetas = _zetas(part, squares, group, steps)
    limits = squares if group["delta"] == 1 else list(torch._foreach_mul(squares, group["delta"] ** 2))
    inverse = _inverse_root(limits, zetas)
    if group["order"] == 2:
        torch._foreach_add_(inverse, _inverse_root(limits, [zeta / beta1**2 for zeta in zetas]))
    scale_(inverse, math.sqrt(1 - beta2**part.step))
    torch._foreach_addcmul_(part.params, means, inverse, -group["lr"] / (1 - beta1**part.step) / group["order"])


def _inverse_root(limits: list[Tensor], zetas: list[float]) -> list[Tensor]:
    import torch

    sums = torch._foreach_add(limits, zetas)
    torch._foreach_sqrt_(sums)
    torch._foreach_reciprocal_(sums)
    return list(sums)


def _zetas(part: Part, squares: list[Tensor], group: dict[str, Any], steps: int) -> list[float]:
    """Each tensor's zeta at this step."""
    import torch

    from grainline.optimizers._parts_torch import HALF

    zeta, cap = group["zeta"], group["zeta_cap"]
    if zeta != "schedule":
        return [zeta] * len(squares)
    zeta = scheduled(part.step, steps)
    if not cap or squares[0].is_meta:  # nothing is known of a tensor on the meta device
        return [zeta] * len(squares)
    wide = torch.float32 if squares[0].dtype in HALF else None
    sums = part.over_shards(torch.stack(torch._foreach_norm(squares, 1, dtype=wide)))
    entries = (part.params[0] if part.whole is None else part.whole).numel()
    most = (sums * (cap * group["delta"] ** 2 / entries)).tolist()
    return [min(zeta, max(1e-16, each)) for each in most]
