"""Muon: torch's figures, who is a matrix, and moves whose singular values are nearly equal."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

import _walk
from _walk import trajectory
from grainline.errors import SpecError
from grainline.optimizers.muon import Muon
from grainline.types import Tagged

GOLDEN = _walk.golden("muon")


@pytest.mark.parametrize(("scale", "key"), [("original", "trajectory"), ("rms", "match_rms")])
def test_golden_trajectories(scale: str, key: str) -> None:
    found = trajectory(Muon(lr=0.1, weight_decay=0.1, scale=scale))
    torch.testing.assert_close(found, torch.tensor(GOLDEN[key], dtype=torch.float64), rtol=0, atol=1e-2)


def test_the_first_move_of_a_diagonal_gradient_by_hand() -> None:
    """Five steps of the quintic on each singular value, from its share of the Frobenius norm."""
    p = Parameter(torch.zeros(2, 2))
    made = Muon(lr=0.1, scale="original", nesterov=False, momentum=0.0)([Tagged("p", p, "up")])
    p.grad = torch.diag(torch.tensor([3.0, 4.0]))
    made.step()
    values = [3.0 / 5.0, 4.0 / 5.0]
    for _ in range(5):
        values = [3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5 for s in values]
    torch.testing.assert_close(p.detach(), -0.1 * torch.diag(torch.tensor(values)), rtol=0, atol=5e-3)  # bfloat16


def test_all_directions_move_alike() -> None:
    """A gradient of condition 32 makes a move of condition 3."""
    random = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(16, 16, generator=random)).Q for _ in range(2))
    p = Parameter(torch.zeros(16, 16))
    p.grad = u @ torch.diag(torch.logspace(0, -1.5, 16)) @ v
    Muon(lr=1.0, scale="original")([Tagged("p", p, "up")]).step()
    values = torch.linalg.svdvals(p.detach())
    assert values.max() / values.min() < 3
    assert 0.5 < values.min() < values.max() < 1.5


def tags() -> list[Tagged]:
    shapes = {"down": (4, 6), "magnitude": (5,), "angle": (2, 6), "block": (2, 3, 4)}
    return [Tagged(role, Parameter(torch.ones(shape)), role) for role, shape in shapes.items()]


def test_option_roles() -> None:
    """Two-dimensional tensors of the roles named; vectors, stacks and other roles follow AdamW."""
    for roles, matrices in (({"down", "magnitude", "block"}, {"down"}), ({"down", "angle"}, {"down", "angle"})):
        made = Muon(roles=roles)(tags())
        assert {group["role"] for group in made.param_groups if "ns_steps" in group} == matrices
        assert {group["role"] for group in made.param_groups if "betas" in group} == {t.role for t in tags()} - matrices
    with pytest.raises(SpecError, match=r"no matrix has one of the roles up.*angle, block, down, magnitude"):
        Muon(roles={"up"})(tags())


def test_a_matrix_alone_and_the_rest_is_torchs_adamw() -> None:
    ours, theirs = tags(), tags()
    made, adamw = Muon(lr=0.1)(ours), torch.optim.AdamW([t.tensor for t in theirs[1:]], lr=0.1, weight_decay=0.0)
    for step in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.tensor.grad = _walk.pull(a.tensor.detach(), 0, step)
            b.tensor.grad = a.tensor.grad.clone()
        made.step()
        adamw.step()
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(ours[1:], theirs[1:], strict=True))
    assert len(Muon()(tags()[:1]).param_groups) == 1


def moved(**options: object) -> torch.Tensor:
    p = Parameter(torch.zeros(6, 4))
    p.grad = torch.zeros(6, 4)
    p.grad[:4] = torch.diag(torch.tensor([1.0, 0.5, 0.1, 0.05]))
    Muon(lr=0.1, **options)([Tagged("p", p, "up")]).step()
    return p.detach()


def test_option_newton_steps() -> None:
    """One step leaves singular values far apart, five do not."""
    few, many = (torch.linalg.svdvals(moved(newton_steps=n)) for n in (1, 5))
    assert few.max() / few.min() > 4 > 2 > many.max() / many.min()


def test_option_scale() -> None:
    ratio = moved(scale="rms").norm() / moved(scale="original").norm()
    assert ratio.item() == pytest.approx(0.2 * 6**0.5 / (6 / 4) ** 0.5, rel=1e-3)
