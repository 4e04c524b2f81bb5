"""What optimizers share: parameter groups by role, and the options that mean the same in all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from grainline.errors import SpecError, nearest
from grainline.types import Tagged

if TYPE_CHECKING:
    from torch import Tensor

Memory = Annotated[float, Field(ge=0, lt=1)]
"""How much of a running mean stays in a step, in [0, 1); about 1 / (1 - memory) steps are remembered."""
ByRole = dict[str, Annotated[float, Field(ge=0)]]
"""Role -> its learning rate, or a factor on the common one."""
Groups = list[dict[str, Any]]
"""Torch parameter groups; ``params`` are (name, tensor)."""


class Grouped(Protocol):
    """What every optimizer of the room says of its groups."""

    @property
    def lr(self) -> float: ...
    @property
    def lr_of(self) -> Mapping[str, float]: ...
    @property
    def lr_scale(self) -> Mapping[str, float]: ...
    @property
    def weight_decay(self) -> float: ...


def by_role(parameters: Sequence[Tagged], spec: Grouped) -> Groups:
    """Torch parameter groups: for each role its matrices (which decay), then its vectors (which do not).

    Groups stand in the order of their roles and tensors in the order of their names, so that neither the result nor a
    saved state depends on the order in which parameters are handed in. Each group carries its ``role``. Its rate is the
    role's in ``lr_of``, or else ``lr`` times the role's factor in ``lr_scale``.

    Raises:
        SpecError: ``lr_of`` or ``lr_scale`` names a role that no parameter has, or both name the same.
    """
    roles = sorted({parameter.role for parameter in parameters})
    for written, entries in (("lr", spec.lr_of), ("lr_scale", spec.lr_scale)):
        for role in entries:
            if role not in roles:
                where = f"{written}.{role}"
                raise SpecError(f"no parameter has the role {role!r}.", where=where, instead=nearest(role, roles))
    for role in sorted(spec.lr_of.keys() & spec.lr_scale.keys()):
        instead = f"Leave one: lr.{role} or lr_scale.{role}."
        raise SpecError(f"the role {role!r} has both a rate and a factor on the common rate.", instead=instead)
    groups = []
    for role in roles:
        mine = sorted((p for p in parameters if p.role == role), key=lambda p: p.name)
        for decays in (True, False):
            named = [(p.name, p.tensor) for p in mine if (p.tensor.ndim >= 2) == decays]
            if named:
                rate = spec.lr_of.get(role, spec.lr * spec.lr_scale.get(role, 1.0))
                decay = spec.weight_decay if decays else 0.0
                groups.append({"params": named, "lr": rate, "weight_decay": decay, "role": role})
    return groups


def apart(groups: Groups, belongs: Callable[[str, Tensor], bool]) -> tuple[Groups, Groups]:
    """The same groups in two lists: tensors for which ``belongs(role, tensor)``, and the others."""

    def those(wanted: bool) -> Groups:
        chosen = [
            group | {"params": [(n, t) for n, t in group["params"] if belongs(group["role"], t) == wanted]}
            for group in groups
        ]
        return [group for group in chosen if group["params"]]

    return those(True), those(False)
