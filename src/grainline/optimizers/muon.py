r"""Muon: a matrix moves by its momentum with all singular values made nearly equal; everything else follows AdamW.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with the scale of Liu et al. 2025, arXiv:2502.16982:

.. math:: b \leftarrow \mu b + (1-\mu)\,g, \qquad O = \mathrm{NewtonSchulz}_5(g + \mu\,(b - g)), \qquad
          \theta \leftarrow (1-\eta\lambda)\,\theta - 0.2\,\eta\,\sqrt{\max(\text{rows}, \text{columns})}\;O

The scale gives each move AdamW's usual size, so one learning rate serves both. Both are torch's: torch.optim.Muon,
whose Newton-Schulz iteration runs in bfloat16, and torch.optim.AdamW. A matrix is told by its role, not only by its
shape: skew generators and stacks of vectors are two-dimensional, too, but map nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.errors import SpecError
from grainline.optimizers._parts import ByRole, Memory, apart, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer


@spec
class Muon:
    paper: ClassVar[str] = "arXiv:2502.16982"

    lr: float = Field(1e-4, gt=0)
    """Peak learning rate: with scale=rms about how far a weight moves in a step, for matrices and others alike."""
    roles: frozenset[str] = frozenset({"down", "up", "weight"})
    """Roles whose two-dimensional tensors are matrices; all else follows AdamW."""
    momentum: Memory = 0.95
    """Memory of a matrix's gradient, per step, in [0, 1)."""
    nesterov: bool = True
    """Look one step ahead: the gradient counts once more."""
    newton_steps: int = Field(5, ge=1, lt=100)
    """Iterations of Newton-Schulz; 5 bring singular values to between 0.5 and 1.5."""
    scale: Literal["rms", "original"] = "rms"
    """Size of a move: rms is AdamW's, original is sqrt(max(1, rows / columns)) and wants a learning rate of its own."""
    betas: tuple[Memory, Memory] = (0.9, 0.999)
    """AdamW's memory of the gradient's mean and of its square, for what is no matrix."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's eps, in units of the gradient."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each matrix that vanishes in a step, per unit of learning rate. torch's Muon has 0.1."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """One optimizer for both kinds.

        Raises:
            SpecError: no parameter is a matrix of one of ``roles``, or ``by_role`` refuses a role's rate.
        """
        import torch

        from grainline.optimizers._parts_torch import Combined

        groups = by_role(parameters, self)
        matrices, others = apart(groups, lambda role, tensor: role in self.roles and tensor.ndim == 2)
        if not matrices:
            found = ", ".join(sorted({tagged.role for tagged in parameters}))
            raise SpecError(
                f"no matrix has one of the roles {', '.join(sorted(self.roles))}, so this would be AdamW.",
                where="muon:roles",
                instead=f"Choose among: {found}; or optimizer=adamw.",
            )
        muon = torch.optim.Muon(
            matrices,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.newton_steps,
            adjust_lr_fn="match_rms_adamw" if self.scale == "rms" else "original",
        )
        if not others:
            return Combined([muon])
        return Combined([muon, torch.optim.AdamW(others, lr=self.lr, betas=self.betas, eps=self.eps)])
