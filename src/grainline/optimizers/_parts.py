"""What optimizers share: parameter groups by role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grainline.errors import SpecError, nearest
from grainline.types import Tagged


def by_role(
    parameters: Sequence[Tagged], *, lr: float, lr_scale: Mapping[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Torch parameter groups: for each role its matrices (which decay), then its vectors (which do not).

    Groups stand in the order of their roles and tensors in the order of their names, so that neither the result nor a
    saved state depends on the order in which parameters are handed in. Each group carries its ``role``.

    Raises:
        SpecError: ``lr_scale`` names a role that no parameter has.
    """
    roles = sorted({parameter.role for parameter in parameters})
    for role in lr_scale:
        if role not in roles:
            raise SpecError(f"no parameter has the role {role!r}.", where="lr_scale", instead=nearest(role, roles))
    groups = []
    for role in roles:
        mine = sorted((p for p in parameters if p.role == role), key=lambda p: p.name)
        for decays in (True, False):
            named = [(p.name, p.tensor) for p in mine if (p.tensor.ndim >= 2) == decays]
            if named:
                rate, decay = lr * lr_scale.get(role, 1.0), weight_decay if decays else 0.0
                groups.append({"params": named, "lr": rate, "weight_decay": decay, "role": role})
    return groups
