"""Stiefel Adam: a turn by hand, the authors' figures, and rotations that stay rotations."""

from __future__ import annotations

from math import atan, cos, sin

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import _walk
from grainline import rooms
from grainline.errors import ModelError, SpecError
from grainline.optimizers.stiefel_adam import StiefelAdam, polar
from grainline.types import Tagged

GOLDEN = _walk.golden("stiefel_adam")


def rotation(size: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Parameter:
    random = torch.Generator().manual_seed(seed)
    return Parameter(torch.linalg.qr(torch.randn(size, size, generator=random, dtype=torch.float64)).Q.to(dtype))


def off(matrix: Tensor) -> float:
    """How far a matrix is from orthogonal: the largest entry of X^T X - I."""
    wide = matrix.detach().double()
    return float((wide.T @ wide - torch.eye(len(wide), dtype=torch.float64)).abs().max())


def test_a_turn_of_the_plane_by_hand() -> None:
    """At X = I the first move is xi = -lr * sign(skew part of G), and polar(I + xi) turns by atan(lr)."""
    p = Parameter(torch.eye(2, dtype=torch.float64))
    made = StiefelAdam(lr=0.2, eps=1e-12)([Tagged("p", p, "orthogonal")])
    p.grad = torch.tensor([[5.0, 3.0], [1.0, -2.0]], dtype=torch.float64)  # G - G^T = [[0, 2], [-2, 0]]
    made.step()
    angle = atan(0.2)
    wanted = torch.tensor([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]], dtype=torch.float64)
    torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-9)


def test_golden_trajectory() -> None:
    p = Parameter(torch.eye(3, dtype=torch.float64))
    target = torch.tensor(GOLDEN["T"], dtype=torch.float64)
    made = StiefelAdam(lr=0.1, betas=(0.9, 0.99))([Tagged("p", p, "orthogonal")])
    for wanted in GOLDEN["steps"]:
        made.zero_grad()
        loss = (p - target).square().sum()
        assert loss.item() == pytest.approx(wanted["loss"], abs=1e-7)
        loss.backward()
        made.step()
        torch.testing.assert_close(p.detach(), torch.tensor(wanted["X"], dtype=torch.float64), rtol=0, atol=1e-7)


def test_polar_is_the_nearest_orthogonal_matrix() -> None:
    random = torch.Generator().manual_seed(1)
    skew = 3.0 * torch.randn(5, 8, 8, generator=random, dtype=torch.float64)
    matrix = torch.eye(8, dtype=torch.float64) + skew - skew.mT
    u, _, v = torch.linalg.svd(matrix)
    torch.testing.assert_close(polar(matrix), u @ v, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("size", "lr"), [(4, 0.3), (32, 0.02)])
def test_rotations_stay_orthogonal_for_1000_steps(size: int, lr: float) -> None:
    """In float32, under noise, to 1e-6."""
    p = rotation(size)
    made = StiefelAdam(lr=lr, weight_decay=0.5)([Tagged("p", p, "orthogonal")])
    random, worst, start = torch.Generator().manual_seed(2), 0.0, p.detach().clone()
    for step in range(1000):
        p.grad = torch.randn(size, size, generator=random)
        made.step()
        worst = max(worst, off(p)) if step % 50 == 49 else worst
    assert worst < 1e-6
    assert (p - start).norm() > 0.1


def test_it_finds_a_rotation() -> None:
    p, target = rotation(6, dtype=torch.float64), rotation(6, seed=5, dtype=torch.float64).detach()
    if torch.det(p) * torch.det(target) < 0:
        target[0] *= -1  # no turn leads to a reflection
    made = StiefelAdam(lr=0.05)([Tagged("p", p, "orthogonal")])
    for step in range(400):
        for group in made.param_groups:
            group["lr"] = 0.05 * (1 - step / 400)
        made.zero_grad()
        (p - target).square().sum().backward()
        made.step()
    assert (p - target).norm() < 1e-2


def test_the_others_follow_adamw() -> None:
    a, b = (Parameter(torch.ones(3, 2)) for _ in range(2))
    both = [Tagged("r", rotation(3), "orthogonal"), Tagged("spectrum", a, "spectrum")]
    made = rooms.parse("optimizers", "stiefel-adam:lr=0.1,weight_decay=0.2,lr_scale.spectrum=2")(both)
    adamw = torch.optim.AdamW([b], lr=0.2, weight_decay=0.2)
    for step in range(3):
        for p in (a, b):
            p.grad = _walk.pull(torch.ones(3, 2), 0, step)
        made.step()
        adamw.step()
    assert torch.equal(a, b)
    assert {g["role"]: (g["lr"], g["weight_decay"]) for g in made.param_groups} == {
        "orthogonal": (0.1, 0.0),
        "spectrum": (0.2, 0.2),
    }


def test_what_is_refused() -> None:
    with pytest.raises(SpecError, match="no parameter has the role 'orthogonal'"):
        StiefelAdam()([Tagged("p", Parameter(torch.ones(2, 2)), "up")])
    with pytest.raises(ModelError, match=r"only square rotations are trained, this is \(3, 2\)"):
        StiefelAdam()([Tagged("p", Parameter(torch.ones(3, 2)), "orthogonal")])
    with pytest.raises(ModelError, match="off by"):
        StiefelAdam()([Tagged("p", Parameter(torch.ones(2, 2)), "orthogonal")])
