"""SGDP: one step by hand, the published package and its figures, and norms that do not grow."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

import _walk
from _walk import trajectory
from grainline.optimizers.sgdp import SGDP
from grainline.types import Tagged

CASES = [case for case in _walk.CASES if case.startswith("sgdp")]
GOLDEN = _walk.golden("sgdp")


def test_two_steps_by_hand() -> None:
    """Rows of (3, 4) and gradients along (4, -3) and along (3, 4) itself: only the first is free of radial parts."""
    p = Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    made = SGDP(lr=0.1, momentum=0.5, weight_decay=0.2, wd_ratio=0.25)([Tagged("p", p, "up")])
    p.grad = torch.tensor([[4.0, -3.0]], dtype=torch.float64)  # cos = 0: projected, and there is nothing to take away
    made.step()
    decay = 1 - 0.1 * 0.2 * 0.25 / (1 - 0.5)
    first = [3 * decay - 0.1 * 4, 4 * decay + 0.1 * 3]
    torch.testing.assert_close(p.detach(), torch.tensor([first], dtype=torch.float64), rtol=0, atol=1e-8)
    p.grad = torch.tensor([[3.0, 4.0]], dtype=torch.float64)  # cos near 1: neither projection nor less decay
    made.step()
    decay = 1 - 0.1 * 0.2 / (1 - 0.5)
    second = [first[0] * decay - 0.1 * (0.5 * 4 + 3), first[1] * decay - 0.1 * (0.5 * -3 + 4)]
    torch.testing.assert_close(p.detach(), torch.tensor([second], dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("nesterov", "key"), [(False, "trajectory"), (True, "nesterov")])
def test_golden_trajectories(nesterov: bool, key: str) -> None:
    found = trajectory(SGDP(lr=0.1, weight_decay=1e-4, nesterov=nesterov))
    torch.testing.assert_close(found, torch.tensor(GOLDEN[key], dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_figures_of_the_published_package(case: str) -> None:
    _walk.check_figures(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_package(case: str, dtype: torch.dtype) -> None:
    pytest.importorskip("adamp", reason="NO PARITY TEST: adamp is not installed (pip install --no-deps adamp==0.3.0)")
    _walk.check_published(case, dtype)


def test_option_delta() -> None:
    """However large the angle, nothing radial is left of a move; at 0 all of it is."""
    places = trajectory(SGDP(lr=0.1, delta=1e9))
    assert ((places[1] - places[0]) * places[0]).sum(1).abs().max() < 1e-7
    places = trajectory(SGDP(lr=0.1, delta=0.0))
    assert ((places[1] - places[0]) * places[0]).sum(1).abs().max() > 1e-2


def test_option_wd_ratio() -> None:
    """The stream's first gradient is projected: decay there is wd_ratio of the whole."""
    free, full, half = (
        trajectory(SGDP(lr=0.1, weight_decay=d, wd_ratio=r))[0] for d, r in ((0.0, 1.0), (0.5, 1.0), (0.5, 0.5))
    )
    torch.testing.assert_close(2 * (half - free), full - free, rtol=0, atol=1e-12)
    assert (full - free).abs().max() > 0.01


def test_option_dampening() -> None:
    """It acts at the first step, too, where torch's SGD takes the gradient whole."""
    start = torch.tensor(_walk.golden("optim_stream")["p0"], dtype=torch.float64)
    whole, damped = (trajectory(SGDP(lr=0.1, dampening=d, delta=0.0))[0] - start for d in (0.0, 0.4))
    torch.testing.assert_close(damped, 0.6 * whole, rtol=0, atol=1e-12)
