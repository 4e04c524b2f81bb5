r"""Adafactor: Adam whose memory of squared gradients is a row and a column, with steps relative to a weight's size.

Shazeer and Stern 2018, arXiv:1804.04235, Algorithm 4. Of a matrix it keeps the means of the rows and columns of
:math:`g^2`, R and C, in place of v, and no mean of the gradient:

.. math:: u = g \big/ \sqrt{R\,C^\top / \mathbf{1}^\top R}, \qquad
          \theta \leftarrow (1-\eta\lambda)\,\theta
          - \min(\eta, 1/\sqrt{k})\,\max(\epsilon, \mathrm{rms}(\theta))\,\frac{u}{\max(1, \mathrm{rms}(u)/d)}

It is torch.optim.Adafactor. A vector keeps its squares whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.optimizers._parts import ByRole, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer


@spec
class Adafactor:
    paper: ClassVar[str] = "arXiv:1804.04235"

    lr: float = Field(1e-2, gt=0)
    """Peak learning rate, as a share of each weight tensor's root mean square; never above 1 / sqrt(step)."""
    beta2_decay: float = Field(-0.8, le=0)
    """The memory of squared gradients at step k is 1 - k^this; 0 has none."""
    clip: float = Field(1.0, ge=1)
    """Largest root mean square of a move, before it is scaled: the paper's d, at least 1."""
    least: float = Field(1e-3, gt=0)
    """Root mean square that a tensor has at least where steps are scaled by it; a LoRA B starts at 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each matrix that vanishes in a step, per unit of learning rate."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """The optimizer, one group for each role's matrices and one for its vectors.

        Raises:
            SpecError: ``by_role`` refuses a role's rate.
            ModelError: a parameter is sharded.
        """
        import torch

        from grainline.optimizers._parts_torch import refuse_sharded

        refuse_sharded(parameters, "torch's Adafactor takes norms in place, which shards cannot", "Choose adamw.")
        groups = by_role(parameters, self)
        return torch.optim.Adafactor(
            groups, lr=self.lr, beta2_decay=self.beta2_decay, eps=(None, self.least), d=self.clip
        )
