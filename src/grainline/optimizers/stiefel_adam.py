r"""Adam on rotations: orthogonal factors turn and stay orthogonal, all others follow AdamW.

Factors are known by their role, ``orthogonal``. No adapter that comes with Grainline has such factors: ours make their
rotations from free numbers, which any optimizer may move. This is for adapters from elsewhere.

Kong, Wang and Tao 2023, arXiv:2205.14173, canonical metric, for square X with gradient G (the optimizer of SODA,
arXiv:2405.21050). Means are kept of the skew part, so each stays what it is however the entries are scaled:

.. math:: S = X^\top G - G^\top X, \quad Y \leftarrow \beta_1 Y - (1-\beta_1) S, \quad
          v \leftarrow \beta_2 v + (1-\beta_2) S^2, \qquad
          \xi = \frac{\eta}{1-\beta_1^k}\,\frac{Y}{\sqrt{v/(1-\beta_2^k)} + \epsilon}, \quad
          X \leftarrow \mathrm{polar}(X + X \xi)

where polar(M) is the orthogonal matrix nearest to M, found by Newton's iteration. Equal to the authors' release (its
defaults, forward Euler) on a golden trajectory. Not here: tall factors, which need a normal component, and transport by
the Cayley map. The AdamW beside it is torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from grainline.errors import ModelError, SpecError
from grainline.optimizers._parts import ByRole, Memory, apart, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from grainline.optimizers._parts_torch import Part

ROLE = "orthogonal"


@spec
class StiefelAdam:
    paper: ClassVar[str] = "arXiv:2205.14173"

    lr: float = Field(1e-4, gt=0)
    """Peak learning rate: radians that a pair of axes turns in one step, and about how far other weights move."""
    betas: tuple[Memory, Memory] = (0.9, 0.999)
    """Memory of the gradient's mean and of its square, per step, in [0, 1)."""
    eps: float = Field(1e-5, gt=0)
    """Added to the size of a rotation's gradient, in its units."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each other matrix that vanishes in a step, per unit of learning rate; rotations never decay."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {spectrum: 10}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """One optimizer for both kinds.

        Raises:
            SpecError: no parameter is orthogonal, or ``by_role`` refuses a role's rate.
            ModelError: an orthogonal parameter is not square, not orthogonal, or sharded.
        """
        import torch

        from grainline.optimizers._parts_torch import ByParts, Combined, refuse_sharded

        turned = [tagged for tagged in parameters if tagged.role == ROLE]
        refuse_sharded(turned, "a rotation turns whole", "Leave it whole: fully_shard(..., ignored_params=...).")
        for tagged in turned:
            _check(tagged)
        groups = by_role(parameters, self)
        rotations, others = apart(groups, lambda role, _: role == ROLE)
        if not rotations:
            raise SpecError(
                f"no parameter has the role {ROLE!r}, so this would be AdamW.",
                where="stiefel-adam",
                instead="Choose an adapter with orthogonal factors (none of ours has them), or optimizer=adamw.",
            )
        rotations = [group | {"weight_decay": 0.0} for group in rotations]
        options = {"betas": self.betas, "eps": self.eps}
        members: list[Optimizer] = [ByParts(rotations, options, keeps=("exp_avg", "exp_avg_sq"), rule=step)]
        if others:
            members.append(torch.optim.AdamW(others, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay))
        return Combined(members)


def step(part: Part, group: dict[str, Any]) -> None:
    """One step of all rotations of one size, in place."""
    import torch

    from grainline.optimizers._parts_torch import scale_

    (beta1, beta2), k = group["betas"], part.step
    x_NCC, grad_NCC = torch.stack(part.params), torch.stack(part.grads)
    skew_NCC = x_NCC.mT @ grad_NCC
    skew = list((skew_NCC - skew_NCC.mT).unbind())
    means, squares = part.kept("exp_avg"), part.kept("exp_avg_sq")
    scale_(means, beta1)
    torch._foreach_add_(means, skew, alpha=beta1 - 1)
    scale_(squares, beta2)
    torch._foreach_addcmul_(squares, skew, skew, 1 - beta2)
    size_NCC = (torch.stack(squares) / (1 - beta2**k)).sqrt() + group["eps"]
    turn_NCC = torch.stack(means) / size_NCC * (group["lr"] / (1 - beta1**k))
    if group["lr"]:  # a rate of 0 leaves every bit
        torch._foreach_copy_(part.params, list(polar(x_NCC + x_NCC @ turn_NCC).unbind()))


def polar(matrix: Tensor, steps: int = 12) -> Tensor:
    """The orthogonal matrix nearest to each (..., C, C): Newton's iteration halves the way between M and its inverse
    transpose. It converges from any regular matrix, quadratically near the end; X + X xi is always regular."""
    import torch

    wide = matrix if matrix.dtype in (torch.float32, torch.float64) else matrix.float()
    for _ in range(steps):
        wide = (wide + torch.linalg.inv_ex(wide).inverse.mT) / 2
    return wide.to(matrix.dtype)


def _check(tagged: Tagged) -> None:
    import torch

    matrix, where = tagged.tensor.detach(), tagged.name
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ModelError(f"only square rotations are trained, this is {tuple(matrix.shape)}.", where=where)
    if matrix.is_meta:
        return
    wide = matrix.double()
    apart = float((wide.mT @ wide - torch.eye(len(wide), dtype=wide.dtype, device=wide.device)).abs().max())
    if not apart < (1e-4 if matrix.dtype in (torch.float32, torch.float64) else 1e-2):
        raise ModelError(f"has the role {ROLE!r} but is not: it is off by {apart:.1e}.", where=where)
