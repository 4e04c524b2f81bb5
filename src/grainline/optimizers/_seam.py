"""The interface of an optimizer: a spec that is called with tagged parameters and answers with a torch optimizer.

``optimizer(parameters: list[Tagged]) -> torch.optim.Optimizer``. The spec's ``lr`` is the peak learning rate; the
trainer's schedule multiplies every group's rate by the same factor. Groups are made by role, never by name.

A spec may say of itself

===========  =======================================================================================================
``needs``    what it wants to be told besides: ``{"steps"}``, the number of optimizer steps that the run plans
``package``  the package that it comes from, where that is not installed with Grainline
===========  =======================================================================================================

A torch optimizer whose weights to be used are not those it trains (an average of them) has ``train()`` and ``eval()``,
which exchange them: :func:`training` and :func:`result`, for most optimizers nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from grainline.types import Tagged

if TYPE_CHECKING:
    from torch.optim import Optimizer


NEEDS = frozenset({"steps"})
"""All that an optimizer may ask for."""
ENTRIES = {"lr": "lr_of"}
"""Options whose entries are a field of their own: ``lr.up=2e-3`` stands beside ``lr=1e-3`` and is kept in ``lr_of``."""


class OptimizerSpec(Protocol):
    lr: float

    def __call__(self, parameters: Sequence[Tagged], **needed: Any) -> Optimizer: ...


def build(spec: OptimizerSpec, parameters: Sequence[Tagged], *, steps: int) -> Optimizer:
    """The optimizer of a run of ``steps`` optimizer steps, told what it needs.

    Raises:
        SpecError: an option does not go with these parameters.
    """
    known = {"steps": steps}
    return spec(parameters, **{need: known[need] for need in sorted(getattr(spec, "needs", ()))})


@contextmanager
def training(optimizer: Any) -> Iterator[None]:
    """Steps are made in here; afterwards the model is as it is to be used."""
    _switch(optimizer, "train")
    yield
    _switch(optimizer, "eval")


@contextmanager
def result(optimizer: Any) -> Iterator[None]:
    """Amid training, the model as it is to be used: evaluated, saved."""
    _switch(optimizer, "eval")
    yield
    _switch(optimizer, "train")


def _switch(optimizer: Any, mode: str) -> None:
    getattr(optimizer, mode, lambda: None)()
