"""Any torch optimizer by name: equality with the class, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

import _walk
from grainline import rooms
from grainline.errors import SpecError
from grainline.types import Tagged


def made(text: str, parameters: list[Parameter] | None = None) -> torch.optim.Optimizer:
    parameters = parameters or [Parameter(torch.ones(2, 2)), Parameter(torch.ones(3))]
    return rooms.parse("optimizers", text)([Tagged(f"{i}", p, "up") for i, p in enumerate(parameters)])


def test_equals_the_class() -> None:
    a, b = _walk.weights(torch.float32), _walk.weights(torch.float32)
    ours = made("by-name:optimizer=torch.optim.RAdam,lr=0.01,options.betas=[0.8, 0.99]", a)
    found, wanted = _walk.walk(ours, a, 20), _walk.walk(torch.optim.RAdam(b, lr=0.01, betas=(0.8, 0.99)), b, 20)
    assert type(ours) is torch.optim.RAdam
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_option_optimizer() -> None:
    assert type(made("by-name")) is torch.optim.NAdam
    assert type(made("by-name:optimizer=torch.optim.Adamax")) is torch.optim.Adamax


def test_option_options() -> None:
    groups = made("by-name:options.momentum_decay=0.01,options.eps=1e-6").param_groups
    assert [(group["momentum_decay"], group["eps"]) for group in groups] == [(0.01, 1e-6)] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("by-name:optimizer=torch.optim.NAdamm", "there is no 'torch.optim.NAdamm'"),
        ("by-name:optimizer=nopackage.Class", "there is no 'nopackage.Class'"),
        ("by-name:optimizer=torch.nn.Linear", "torch.nn.Linear is not a torch optimizer"),
        ("by-name:optimizer=torch.optim.LBFGS", "evaluates the loss itself"),
        ("by-name:options.momentum_decy=1", r"has no option 'momentum_decy'.*Did you mean 'momentum_decay'"),
        ("by-name:options.lr=1", "lr is set beside the options"),
        ("by-name:options.betas=[2, 2]", "refuses this"),
        ("by-name:optimizer=torch.optim.Rprop,weight_decay=0.1", "Rprop has no weight decay"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        made(text)
