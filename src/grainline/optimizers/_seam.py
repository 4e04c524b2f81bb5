"""The interface of an optimizer: a spec that is called with tagged parameters and answers with a torch optimizer.

``optimizer(parameters: list[Tagged]) -> torch.optim.Optimizer``. The spec's ``lr`` is the peak learning rate; the
trainer's schedule multiplies every group's rate by the same factor. Groups are made by role, never by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from grainline.types import Tagged

if TYPE_CHECKING:
    from torch.optim import Optimizer


class OptimizerSpec(Protocol):
    lr: float

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer: ...
