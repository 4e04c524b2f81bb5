r"""AdamW: each weight moves by its gradient's mean over its gradient's size, and decays apart from both.

Loshchilov and Hutter 2017, arXiv:1711.05101, Algorithm 2 (in torch's form: the decay is multiplied by the learning
rate):

.. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
          \theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\,\frac{m/(1-\beta_1^k)}{\sqrt{v/(1-\beta_2^k)} + \epsilon}

Decay acts on matrices only, never on biases and other vectors. ``lr_scale`` gives roles their own rates:
``adamw:lr_scale.up=16`` is LoRA+ (Hayou et al. 2024, arXiv:2402.12354), whose B learns 16 times as fast as its A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from grainline.optimizers._parts import by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer


@spec
class AdamW:
    paper: ClassVar[str] = "arXiv:1711.05101"

    lr: float = Field(1e-4, gt=0)
    """Peak learning rate: about how far a weight moves in one step."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Memory of the gradient's mean and of its square, per step, in [0, 1)."""
    eps: float = Field(1e-8, gt=0)
    """Added to the gradient's size, in units of the gradient; keeps tiny gradients from making full steps."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each matrix that vanishes in a step, per unit of learning rate."""
    lr_scale: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """The optimizer, one group for each role's matrices and one for its vectors.

        Raises:
            SpecError: ``lr_scale`` names a role that no parameter has.
        """
        import torch

        groups = by_role(parameters, lr=self.lr, lr_scale=self.lr_scale, weight_decay=self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)
