"""Groups by role: their order, their decay, their rates."""

from __future__ import annotations

import pytest
import torch

from grainline.errors import SpecError
from grainline.optimizers._parts import by_role
from grainline.types import Tagged


def tag(name: str, shape: tuple[int, ...], role: str) -> Tagged:
    return Tagged(name, torch.nn.Parameter(torch.zeros(shape)), role)


def test_groups() -> None:
    tags = [tag("b", (2, 2), "up"), tag("bias", (2,), "up"), tag("c", (2, 2), "down"), tag("a", (2, 2), "up")]
    groups = by_role(tags, lr=0.1, lr_scale={"up": 3.0}, weight_decay=0.5)
    assert [([name for name, _ in g["params"]], g["role"], g["lr"], g["weight_decay"]) for g in groups] == [
        (["c"], "down", 0.1, 0.5),
        (["a", "b"], "up", pytest.approx(0.3), 0.5),
        (["bias"], "up", pytest.approx(0.3), 0.0),
    ]


def test_a_role_that_nobody_has() -> None:
    with pytest.raises(SpecError, match="no parameter has the role 'magnitude'"):
        by_role([tag("a", (2, 2), "up")], lr=0.1, lr_scale={"magnitude": 2.0}, weight_decay=0.0)
