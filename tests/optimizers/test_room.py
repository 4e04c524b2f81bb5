"""The battery that every optimizer passes. A new file in ``optimizers/`` joins by itself, with its defaults.

The stage is one adapted matrix: W + B R A, with R a rotation, is pulled towards a target, with a magnitude vector
beside it. What an optimizer cannot promise it declares, as ``exceptions``: name of the test without ``test_`` -> why.
The tests ``test_option_...`` hold for every optimizer that has the option.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from grainline import checkpoint, footprint, rooms
from grainline.errors import SpecError
from grainline.optimizers import _seam
from grainline.types import Tagged

NAMES = rooms.names("optimizers")
LR = 0.02
STEPS = 200  # that the run plans
TESTS = Path(__file__).parents[1]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    cls = rooms.load("optimizers", request.param)
    if not installed(request.param):
        pytest.skip(f"NOT TESTED: {request.param} needs the package {cls.package}, which is not installed")
    item = request.function.__name__.removeprefix("test_")
    if item in (declared := getattr(cls, "exceptions", {})):
        pytest.skip(f"DECLARED EXCEPTION {request.param}, {item}: {declared[item]}")
    return request.param


def installed(name: str) -> bool:
    package = getattr(rooms.load("optimizers", name), "package", None)
    return package is None or importlib.util.find_spec(package) is not None


def stage(dtype: torch.dtype = torch.float32) -> list[Tagged]:
    """Four fresh tensors with their roles."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    tensors = {"down": draw(4, 6), "up": draw(5, 4), "magnitude": draw(5)}
    tensors["orthogonal"] = torch.linalg.qr(draw(4, 4)).Q.contiguous()
    return [Tagged(f"layer.{role}", torch.nn.Parameter(t.to(dtype)), role) for role, t in tensors.items()]


def loss(parameters: list[Tagged]) -> Tensor:
    by_role = {tag.role: tag.tensor for tag in parameters}
    target = torch.linspace(-1, 1, 30).reshape(5, 6)
    change = by_role["up"] @ by_role["orthogonal"] @ by_role["down"]
    return (change - target).square().mean() + (by_role["magnitude"] - 1).square().mean()


def pulls(parameters: list[Tagged], step: int) -> dict[str, Tensor]:
    """A gradient for each role, drawn anew for each step."""
    random = torch.Generator().manual_seed(step)
    return {tag.role: torch.randn(tag.tensor.shape, generator=random) for tag in parameters}


def optimizer(name: str, parameters: list[Tagged], **options: Any) -> torch.optim.Optimizer:
    spec = dataclasses.replace(rooms.parse("optimizers", name), **{"lr": LR} | options)
    return _seam.build(spec, parameters, steps=STEPS)


def switch(made: torch.optim.Optimizer, mode: str) -> None:
    """Into "train" or "eval", as the trainer does it."""
    getattr(made, mode, lambda: None)()


def run(made: torch.optim.Optimizer, parameters: list[Tagged], steps: int) -> None:
    """Steps as the trainer makes them; what the model holds afterwards is the result."""
    switch(made, "train")
    for _ in range(steps):
        made.zero_grad()
        loss(parameters).backward()
        made.step()
    switch(made, "eval")


def same(a: list[Tagged], b: list[Tagged]) -> bool:
    found = {tag.name: tag.tensor for tag in b}
    return all(torch.equal(tag.tensor, found[tag.name]) for tag in a)


def has(name: str, option: str) -> bool:
    return option in {field.name for field in dataclasses.fields(rooms.load("optimizers", name))}


# ------------------------------------------------------------------------------------------------- what is promised


def test_exceptions_name_items_of_this_battery() -> None:
    items = {name.removeprefix("test_") for name, _ in inspect.getmembers(sys.modules[__name__], inspect.isfunction)}
    for each in NAMES:
        assert set(getattr(rooms.load("optimizers", each), "exceptions", {})) <= items


def test_text_round_trip(name: str) -> None:
    spec = rooms.parse("optimizers", name)
    assert spec.lr > 0
    assert rooms.parse("optimizers", rooms.text(spec)) == spec
    assert getattr(spec, "needs", frozenset()) <= _seam.NEEDS


def test_lowers_a_loss(name: str) -> None:
    parameters = stage()
    before = loss(parameters).item()
    run(optimizer(name, parameters), parameters, STEPS)
    assert loss(parameters).item() < 0.2 * before


def test_every_tensor_stands_in_one_group(name: str) -> None:
    parameters = stage()
    groups = optimizer(name, parameters).param_groups
    held = [id(tensor) for group in groups for tensor in group["params"]]
    assert sorted(held) == sorted(id(tag.tensor) for tag in parameters)
    roles = {tag.name: tag.role for tag in parameters}
    assert all(roles[each] == group["role"] for group in groups for each in group["param_names"])


def test_the_schedule_can_stop_it(name: str) -> None:
    """A schedule multiplies every group's rate; at 0 nothing may move."""
    parameters = stage()
    start = copy.deepcopy(parameters)
    made = optimizer(name, parameters)
    for group in made.param_groups:
        group["lr"] = 0.0
    run(made, parameters, 2)
    assert same(parameters, start)


def test_resumed_is_uninterrupted(name: str, tmp_path: Path) -> None:
    """Bit by bit, through a checkpoint's files, in both modes of an optimizer that has two."""
    whole, halves = stage(), stage()
    run(optimizer(name, whole), whole, 10)
    first = optimizer(name, halves)
    run(first, halves, 5)
    folder = checkpoint.save(tmp_path, 5, holder(halves), first, {})
    later = stage()
    second = optimizer(name, later)
    checkpoint.restore(folder, holder(later), second)
    run(second, later, 5)
    assert same(whole, later)


def holder(parameters: list[Tagged]) -> torch.nn.Module:
    """A module with these parameters."""
    made = torch.nn.Module()
    for tag in parameters:
        made.register_parameter(tag.role, tag.tensor)
    return made


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


def test_a_tensor_steps_as_if_it_were_alone(name: str) -> None:
    """Many tensors in a few calls are what a loop over them is, to rounding."""
    together = [Tagged(f"{i}.{tag.role}", tag.tensor, tag.role) for i in range(3) for tag in stage()]
    apart = copy.deepcopy(together)
    made = [optimizer(name, together)]
    # muon and stiefel-adam are refused where they would have nothing to do: their matrix comes along
    fixed = [tag for tag in stage() if tag.role in ("down", "orthogonal")]
    each = [optimizer(name, [tag, *(t._replace(name="~" + t.name) for t in copy.deepcopy(fixed))]) for tag in apart]
    for one in (*made, *each):
        switch(one, "train")
    random = torch.Generator().manual_seed(3)
    for _ in range(5):
        for a, b in zip(together, apart, strict=True):
            a.tensor.grad = torch.randn(a.tensor.shape, generator=random)
            b.tensor.grad = a.tensor.grad.clone()
        for one in (*made, *each):
            one.step()
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a.tensor, b.tensor, rtol=0, atol=1e-6)


def test_a_gradient_of_zero_is_no_danger(name: str) -> None:
    parameters = stage()
    made = optimizer(name, parameters)
    switch(made, "train")
    for tag in parameters:
        tag.tensor.grad = torch.zeros_like(tag.tensor)
    start = copy.deepcopy(parameters)
    for _ in range(3):
        made.step()
    switch(made, "eval")
    for tag, old in zip(parameters, start, strict=True):
        torch.testing.assert_close(tag.tensor, old.tensor, rtol=0, atol=1e-6)


def test_a_tensor_without_gradient_stays(name: str) -> None:
    parameters = stage()
    start = copy.deepcopy(parameters)
    made = optimizer(name, parameters)
    switch(made, "train")
    parameters[0].tensor.grad = torch.ones_like(parameters[0].tensor)
    made.step()
    switch(made, "eval")
    assert not torch.equal(parameters[0].tensor, start[0].tensor)
    assert same(parameters[1:], start[1:])


def test_bfloat16_follows_float32(name: str) -> None:
    """Weights near 1 in bfloat16 have a spacing of 2^-7: after a few large steps both are within a few of these."""
    exact, half = stage(), stage(torch.bfloat16)
    made = [optimizer(name, parameters, lr=0.05) for parameters in (exact, half)]
    random = torch.Generator().manual_seed(4)
    for one in made:
        switch(one, "train")
    for _ in range(4):
        for a, b in zip(exact, half, strict=True):
            b.tensor.grad = torch.randn(a.tensor.shape, generator=random).bfloat16()
            a.tensor.grad = b.tensor.grad.float()
        for one in made:
            one.step()
    for one in made:
        switch(one, "eval")
    for a, b in zip(exact, half, strict=True):
        assert b.tensor.dtype == torch.bfloat16
        torch.testing.assert_close(b.tensor.float(), a.tensor, rtol=0, atol=0.05)


def test_forecast_counts_its_state(name: str) -> None:
    """On the meta device, without weights, as ``grainline plan`` asks."""
    real = stage()
    made = optimizer(name, real)
    run(made, real, 1)
    switch(made, "train")
    held = [value for state in made.state.values() for value in state.values() if isinstance(value, Tensor)]
    empty = [tag._replace(tensor=torch.nn.Parameter(torch.empty_like(tag.tensor, device="meta"))) for tag in real]
    counted = footprint.optimizer_state(optimizer(name, empty), empty)
    assert counted == sum(value.numel() * value.element_size() for value in held) > 0


def test_steps_the_same_under_accelerate(name: str) -> None:
    """Its wrapper, as the trainer uses it, sends the state through ``load_state_dict`` before the first step."""
    plain, wrapped = stage(), stage()
    made = optimizer(name, wrapped)
    prepared = Accelerator().prepare(made)
    assert prepared.optimizer is made
    run(optimizer(name, plain), plain, 5)
    run(prepared, wrapped, 5)
    assert same(plain, wrapped)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes with shards (FSDP2's ``fully_shard``, gloo) arrive at, or the error that refused."""
    folder = tmp_path_factory.mktemp("sharded")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"}
    script = [str(TESTS / "scripts" / "sharded_optimizers.py"), str(folder)]
    done = subprocess.run(
        [*command, *script], capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "found.pt")


@pytest.mark.xdist_group("processes")  # two at a time on two cores starve each other
def test_works_sharded_or_says_why_not(name: str, sharded: dict[str, Any]) -> None:
    if isinstance(sharded[name], str):
        assert "sharded" in sharded[name]
        return
    whole = stage()
    made = optimizer(name, whole)
    switch(made, "train")
    for step in range(6):
        for tag in whole:
            tag.tensor.grad = pulls(whole, step)[tag.role]
        made.step()
    switch(made, "eval")
    for tag, start in zip(whole, stage(), strict=True):
        # torch's Muon orthogonalises in bfloat16: sums over shards round otherwise than sums over the whole.
        moved = float((tag.tensor.detach() - start.tensor.detach()).abs().max())
        atol = 2**-6 * moved if name == "muon" else 1e-6
        torch.testing.assert_close(sharded[name][tag.role], tag.tensor.detach(), rtol=0, atol=atol)


# ------------------------------------------------------------------------------- options that mean the same in all


def after(name: str, steps: int = 6, **options: Any) -> dict[str, Tensor]:
    """Where each role's weights are after some steps."""
    parameters = stage()
    run(optimizer(name, parameters, **options), parameters, steps)
    return {tag.role: tag.tensor.detach() for tag in parameters}


def changes(name: str, option: str, value: Any) -> set[str]:
    """Roles that move otherwise with ``option`` at ``value``."""
    if not has(name, option):
        pytest.skip(f"no {option}")
    plain, other = after(name), after(name, **{option: value})
    return {role for role in plain if not torch.equal(plain[role], other[role])}


def test_option_lr(name: str) -> None:
    assert changes(name, "lr", LR / 2) == {"down", "up", "magnitude", "orthogonal"}


def test_option_lr_scale(name: str) -> None:
    parameters, start = stage(), stage()
    run(optimizer(name, parameters, lr_scale={"up": 0.0}), parameters, 3)
    moved = {tag.role for tag, old in zip(parameters, start, strict=True) if not torch.equal(tag.tensor, old.tensor)}
    assert moved == {"down", "magnitude", "orthogonal"}
    assert "up" in changes(name, "lr_scale", {"up": 3.0})
    with pytest.raises(SpecError, match=r"Did you mean 'up'\? There are: down, magnitude, orthogonal, up\."):
        optimizer(name, stage(), lr_scale={"upp": 2.0})


def test_option_lr_of(name: str) -> None:
    """A role's own rate, as text and as a map; it is what a factor would come to, and every other role keeps ``lr``."""
    spec = rooms.parse("optimizers", f"{name}:lr=1e-3,lr.magnitude=2e-3")
    assert (spec.lr, spec.lr_of) == (1e-3, {"magnitude": 2e-3})
    assert rooms.parse("optimizers", rooms.text(spec)) == spec
    assert rooms.resolve("optimizers", {"name": name, "lr": 1e-3, "lr_of": {"magnitude": 2e-3}}) == spec
    groups = _seam.build(spec, stage(), steps=STEPS).param_groups
    common = dict.fromkeys(("down", "up", "orthogonal"), 1e-3)
    assert {group["role"]: group["lr"] for group in groups} == common | {"magnitude": 2e-3}
    rate, factor = after(name, lr_of={"up": 3.0 * LR}), after(name, lr_scale={"up": 3.0})
    assert all(torch.equal(rate[role], factor[role]) for role in rate)
    with pytest.raises(SpecError, match=r"lr\.magnitud: .* Did you mean 'magnitude'\?"):
        optimizer(name, stage(), lr_of={"magnitud": 2e-3})
    with pytest.raises(SpecError, match=r"Leave one: lr\.up or lr_scale\.up"):
        optimizer(name, stage(), lr_of={"up": 2e-3}, lr_scale={"up": 2.0})


def test_option_weight_decay(name: str) -> None:
    """Matrices shrink, vectors do not; the exact amount stands in each optimizer's own test."""
    assert {"down", "up"} <= changes(name, "weight_decay", 0.3)
    made = optimizer(name, stage(), weight_decay=0.3)
    decay = {group["role"]: group["weight_decay"] for group in made.param_groups}
    assert (decay["up"], decay["magnitude"]) == (0.3, 0.0)
    if has(name, "momentum") and not has(name, "betas"):
        return  # without Adam's scale a gradient of zero leaves the decay to the momentum
    parameters = stage()
    made = optimizer(name, parameters, weight_decay=0.3)
    switch(made, "train")
    for tag in parameters:
        tag.tensor.grad = torch.zeros_like(tag.tensor)
    made.step()
    switch(made, "eval")
    for tag, old in zip(parameters, stage(), strict=True):
        assert (tag.tensor.norm() < old.tensor.norm()) == (tag.role in ("down", "up") or decay[tag.role] > 0)


def test_option_betas(name: str) -> None:
    for betas in ((0.5, 0.999), (0.9, 0.5)):
        assert changes(name, "betas", betas)


def test_option_momentum(name: str) -> None:
    assert changes(name, "momentum", 0.5)


def test_option_nesterov(name: str) -> None:
    assert changes(name, "nesterov", not getattr(rooms.parse("optimizers", name), "nesterov", False))


def test_option_eps(name: str) -> None:
    assert changes(name, "eps", 10.0)
