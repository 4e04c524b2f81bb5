"""Any torch optimizer, by the dotted name of its class.

For what has no file here: torch's other optimizers (``torch.optim.NAdam``) and those of installed packages. Its options
are checked against its signature. Groups and the rates of roles work as everywhere in this room, and so does decay,
where the class has it. What needs a closure (LBFGS) cannot be stepped by our loop.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from grainline.errors import SpecError, nearest
from grainline.optimizers._parts import ByRole, by_role
from grainline.types import Tagged, spec

if TYPE_CHECKING:
    from torch.optim import Optimizer

OURS = ("params", "lr", "weight_decay")
"""Arguments that groups carry."""


@spec
class ByName:
    optimizer: str = "torch.optim.NAdam"
    """Dotted name of the class, e.g. torch.optim.RAdam or package.module.Class."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate, in what unit the class has it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the class takes besides: name -> value, e.g. options.betas=[0.9, 0.95]."""
    weight_decay: float = Field(0.0, ge=0)
    """The class's own weight decay, given to matrices only; 0 by default, whatever the class's default is."""
    lr_of: ByRole = Field(default_factory=dict)
    """Role -> its own learning rate in place of lr, written lr.ROLE, e.g. lr.magnitude=2e-3."""
    lr_scale: ByRole = Field(default_factory=dict)
    """Role -> factor on the learning rate, e.g. {up: 16}; roles that are not named have factor 1."""

    def __call__(self, parameters: Sequence[Tagged]) -> Optimizer:
        """The optimizer, one group for each role's matrices and one for its vectors.

        Raises:
            SpecError: no such class, it has no such option or refuses its value, or ``by_role`` refuses a role's rate.
        """
        cls = self._class()
        groups = by_role(parameters, self)
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in self.options.items()}
        try:
            return cls(groups, lr=self.lr, **given)
        except (TypeError, ValueError) as error:
            raise SpecError(f"{self.optimizer} refuses this: {error}", where="by-name") from error

    def _class(self) -> Any:
        from torch.optim import Optimizer

        module, _, name = self.optimizer.rpartition(".")
        try:
            cls = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise SpecError(
                f"there is no {self.optimizer!r}: {error}", where="by-name:optimizer", instead="Write package.Class."
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
            raise SpecError(f"{self.optimizer} is not a torch optimizer.", where="by-name:optimizer")
        step = inspect.signature(cls.step).parameters.get("closure")
        if step is not None and step.default is inspect.Parameter.empty:
            raise SpecError(f"{self.optimizer} evaluates the loss itself, the loop cannot.", where="by-name:optimizer")
        takes = inspect.signature(cls.__init__).parameters
        for option in self.options:
            if option in OURS:
                raise SpecError(f"{option} is set beside the options.", where=f"by-name:options.{option}")
            if option not in takes:
                known = nearest(option, [each for each in takes if each not in ("self", *OURS)])
                raise SpecError(f"{name} has no option {option!r}.", where="by-name:options", instead=known)
        if self.weight_decay and "weight_decay" not in takes:
            raise SpecError(f"{name} has no weight decay.", where="by-name:weight_decay")
        return cls
