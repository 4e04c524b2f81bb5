"""The battery that every optimizer passes. A new file in ``optimizers/`` joins by itself, with its defaults.

The stage is one adapted matrix: W + B A is pulled towards a target, with a magnitude vector beside it.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from grainline import rooms
from grainline.errors import SpecError
from grainline.types import Tagged

NAMES = rooms.names("optimizers")
LR = 0.02

pytestmark = pytest.mark.parametrize("name", NAMES)


def stage() -> list[Tagged]:
    """Three fresh tensors with their roles."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.randn(*shape, generator=random))

    return [
        Tagged("layer.down", draw(4, 6), "down"),
        Tagged("layer.up", draw(5, 4), "up"),
        Tagged("layer.magnitude", draw(5), "magnitude"),
    ]


def loss(parameters: list[Tagged]) -> Tensor:
    by_role = {tag.role: tag.tensor for tag in parameters}
    target = torch.linspace(-1, 1, 30).reshape(5, 6)
    return (by_role["up"] @ by_role["down"] - target).square().mean() + (by_role["magnitude"] - 1).square().mean()


def optimizer(name: str, parameters: list[Tagged], **options: Any) -> torch.optim.Optimizer:
    return dataclasses.replace(rooms.parse("optimizers", name), lr=LR, **options)(parameters)


def run(made: torch.optim.Optimizer, parameters: list[Tagged], steps: int) -> None:
    for _ in range(steps):
        made.zero_grad()
        loss(parameters).backward()
        made.step()


def same(a: list[Tagged], b: list[Tagged]) -> bool:
    found = {tag.name: tag.tensor for tag in b}
    return all(torch.equal(tag.tensor, found[tag.name]) for tag in a)


def test_text_round_trip(name: str) -> None:
    spec = rooms.parse("optimizers", name)
    assert spec.lr > 0
    assert rooms.parse("optimizers", rooms.text(spec)) == spec


def test_lowers_a_loss(name: str) -> None:
    parameters = stage()
    before = loss(parameters).item()
    run(optimizer(name, parameters), parameters, 200)
    assert loss(parameters).item() < 0.2 * before


def test_every_tensor_stands_in_one_group(name: str) -> None:
    parameters = stage()
    held = [id(tensor) for group in optimizer(name, parameters).param_groups for tensor in group["params"]]
    assert sorted(held) == sorted(id(tag.tensor) for tag in parameters)


def test_the_schedule_can_stop_it(name: str) -> None:
    """A schedule multiplies every group's rate; at 0 nothing may move."""
    parameters = stage()
    start = copy.deepcopy(parameters)
    made = optimizer(name, parameters)
    for group in made.param_groups:
        group["lr"] = 0.0
    run(made, parameters, 2)
    assert same(parameters, start)


def test_resumed_is_uninterrupted(name: str) -> None:
    whole = stage()
    run(optimizer(name, whole), whole, 10)
    halves = stage()
    first = optimizer(name, halves)
    run(first, halves, 5)
    second = optimizer(name, halves)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, halves, 5)
    assert same(whole, halves)


def test_order_of_parameters_is_irrelevant(name: str) -> None:
    forwards, backwards = stage(), stage()
    first, second = optimizer(name, forwards), optimizer(name, backwards[::-1])
    run(first, forwards, 5)
    run(second, backwards, 5)
    assert same(forwards, backwards)
    third = optimizer(name, backwards)  # a state moves between runs that list their tensors differently
    third.load_state_dict(copy.deepcopy(first.state_dict()))
    run(first, forwards, 3)
    run(third, backwards, 3)
    assert same(forwards, backwards)


def test_roles_have_their_own_rates(name: str) -> None:
    if "lr_scale" not in {field.name for field in dataclasses.fields(rooms.load("optimizers", name))}:
        pytest.skip("no lr_scale")
    parameters = stage()
    start = copy.deepcopy(parameters)
    run(optimizer(name, parameters, lr_scale={"up": 0.0}), parameters, 3)
    moved = {tag.role for tag, old in zip(parameters, start, strict=True) if not torch.equal(tag.tensor, old.tensor)}
    assert moved == {"down", "magnitude"}
    with pytest.raises(SpecError, match=r"Did you mean 'up'\? There are: down, magnitude, up\."):
        optimizer(name, stage(), lr_scale={"upp": 2.0})
