r"""Schedule-free AdamW: constant rate, and what is evaluated and saved is an average of where training has been.

Defazio et al. 2024, arXiv:2405.15682, Algorithm 1 with AdamW's moves (:math:`\hat v` Adam's running mean of squares):

.. math:: y = (1-\beta_1)\,z + \beta_1\,x, \qquad
          z \leftarrow z - \eta\,\Big(\frac{g(y)}{\sqrt{\hat v} + \epsilon} + \lambda y\Big), \qquad
          x \leftarrow (1-c_k)\,x + c_k\,z, \quad c_k = \eta_k^2 \Big/ \sum_{i \le k} \eta_i^2

Gradients are taken at y, which the model holds while it trains; x is the result, which it holds in between: the trainer
changes over before it evaluates or saves. The step is that of the package ``schedulefree``, by the authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.errors import SpecError
from grainline.optimizers._parts import ByRole, Memory, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer


@spec
class ScheduleFree:
    package: ClassVar[str] = "schedulefree"
    paper: ClassVar[str] = "arXiv:2405.15682"

    lr: float = Field(2e-4, gt=0)
    """Learning rate, constant after its warm-up (set schedule=constant_with_warmup): about how far a weight of z moves
    in a step. Rates that suit it are about twice those that suit AdamW with decay."""
    betas: tuple[Memory, Memory] = (0.9, 0.999)
    """How far y lies from z towards x, and the memory of squared gradients; both in [0, 1), the first above 0."""
    eps: float = Field(1e-8, gt=0)
    """Added to the gradient's size, in units of the gradient."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of each matrix that vanishes in a step, per unit of learning rate."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """The optimizer, one group for each role's matrices and one for its vectors.

        Raises:
            SpecError: the package is not installed, the first of ``betas`` is 0, or ``by_role`` refuses a role's rate.
        """
        if not self.betas[0]:
            raise SpecError("without memory of x there is no average.", where="schedule-free:betas")
        try:
            from grainline.optimizers.schedule_free_torch import Averaged
        except ModuleNotFoundError as error:
            if error.name != self.package:
                raise
            raise SpecError(
                "the package schedulefree is not installed.", where="schedule-free", instead="pip install schedulefree"
            ) from error
        groups = by_role(parameters, self)
        return Averaged(groups, lr=self.lr, betas=self.betas, eps=self.eps)
