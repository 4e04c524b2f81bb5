r"""SGD with momentum: each weight moves by its gradient's running sum, with no adaptation of size.

Polyak 1964; in torch's form, as Sutskever et al. 2013 (PMLR 28) write Nesterov's variant:

.. math:: b \leftarrow \mu b + g + \lambda\theta, \qquad \theta \leftarrow \theta - \eta\,b
          \quad (\text{Nesterov: } \eta\,(g + \lambda\theta + \mu b))

It is torch.optim.SGD, whose decay is part of the gradient and so of the momentum, unlike that of the rest of the room.
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
class SGD:
    paper: ClassVar[str] = "Polyak 1964, doi:10.1016/0041-5553(64)90137-5"

    lr: float = Field(1e-2, gt=0)
    """Peak learning rate, per unit of gradient."""
    momentum: Memory = 0.9
    """Share of the last move that is made again, in [0, 1); a steady gradient moves 1 / (1 - momentum) times as far."""
    nesterov: bool = False
    """Look one step ahead: the move is the gradient and the momentum together."""
    weight_decay: float = Field(0.0, ge=0)
    """How much of each matrix is added to its gradient."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """The optimizer, one group for each role's matrices and one for its vectors.

        Raises:
            SpecError: ``nesterov`` without momentum, or ``by_role`` refuses a role's rate.
        """
        import torch

        if self.nesterov and not self.momentum:
            raise SpecError("nesterov looks ahead along the momentum, which is 0.", where="sgd:nesterov")
        groups = by_role(parameters, self)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)
