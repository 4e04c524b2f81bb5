r"""AdamW: each weight moves by its gradient's mean over its gradient's size, and decays apart from both.

Loshchilov and Hutter 2017, arXiv:1711.05101, Algorithm 2 (in torch's form: the decay is multiplied by the learning
rate):

.. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
          \theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\,\frac{m/(1-\beta_1^k)}{\sqrt{v/(1-\beta_2^k)} + \epsilon}

Decay acts on matrices only, never on biases and other vectors. Roles may have rates of their own:
``adamw:lr_scale.up=16``, the preset ``lora-plus``, is LoRA+ (Hayou et al. 2024, arXiv:2402.12354), whose B learns 16
times as fast as its A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from grainline.optimizers._parts import ByRole, Memory, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer


@spec
class AdamW:
    paper: ClassVar[str] = "arXiv:1711.05101"

    lr: float = Field(1e-4, gt=0)
    """Peak learning rate: about how far a weight moves in one step."""
    betas: tuple[Memory, Memory] = (0.9, 0.999)
    """Memory of the gradient's mean and of its square, per step, in [0, 1)."""
    eps: float = Field(1e-8, gt=0)
    """Added to the gradient's size, in units of the gradient; keeps tiny gradients from making full steps."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each matrix that vanishes in a step, per unit of learning rate."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""
    kernel: Literal["auto", "loop", "foreach", "fused"] = "auto"
    """How torch computes it: tensor by tensor, all tensors in a few calls, or in one. Last digits differ.
    auto is torch's own choice (foreach on a GPU, else loop). On a CPU fused is many times faster."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """The optimizer, one group for each role's matrices and one for its vectors.

        Raises:
            SpecError: ``by_role`` refuses a role's rate.
        """
        import torch

        groups = by_role(parameters, self)
        kernel = "auto" if parameters[0].tensor.is_meta else self.kernel  # the meta device knows no fused kernel
        how: dict[str, Any] = {} if kernel == "auto" else {"foreach": kernel == "foreach", "fused": kernel == "fused"}
        options: dict[str, Any] = {"lr": self.lr, "betas": self.betas, "eps": self.eps}
        return torch.optim.AdamW(groups, weight_decay=self.weight_decay, **options, **how)
