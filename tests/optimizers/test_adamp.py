"""AdamP: one step by hand, the published package and its figures, and norms that do not grow."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch.nn import Parameter

import _walk
from _walk import trajectory
from grainline import rooms
from grainline.optimizers.adamp import AdamP
from grainline.types import Tagged

GOLDEN = _walk.golden("adamp")
START = torch.tensor(_walk.golden("optim_stream")["p0"], dtype=torch.float64)
CASES = [case for case in _walk.CASES if case.startswith("adamp")]


def tag(values: object, role: str = "up") -> Tagged:
    return Tagged("p", Parameter(torch.as_tensor(values, dtype=torch.float64)), role)


def test_one_step_by_hand() -> None:
    """The gradient is at right angles to the first row and nearly so to the second: both moves lose what is radial."""
    p = tag([[3.0, 4.0], [1.0, 0.0]])
    made = AdamP(lr=0.1, eps=1e-12, weight_decay=0.5, delta=0.2, wd_ratio=0.25)([p])
    p.tensor.grad = torch.tensor([[4.0, -3.0], [0.1, 2.0]], dtype=torch.float64)
    made.step()
    # Adam's first move is the gradient's sign; cos of row 2 is 0.1 / |(0.1, 2)| = 0.05 < 0.2 / sqrt(2).
    radial = (1.0 * 3.0 - 1.0 * 4.0) / 5.0
    first = [1.0 - radial * 3.0 / 5.0, -1.0 - radial * 4.0 / 5.0]
    second = [1.0 - 1.0, 1.0]
    decay = 1 - 0.1 * 0.5 * 0.25
    wanted = [[3 * decay - 0.1 * first[0], 4 * decay - 0.1 * first[1]], [decay - 0.1 * second[0], -0.1 * second[1]]]
    torch.testing.assert_close(p.tensor.detach(), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "key"),
    [({}, "trajectory"), ({"delta": 0.0}, "trajectory_delta0_equals_adamw_eps_form"), ({"nesterov": True}, "nesterov")],
)
def test_golden_trajectories(options: dict, key: str) -> None:
    found = trajectory(AdamP(lr=0.1, weight_decay=0.01, **options))
    wanted = torch.tensor(GOLDEN[key], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


def test_a_weight_of_zeros_moves_as_adams() -> None:
    name = "zero_parameter_first_step"
    p = tag(torch.zeros(2, 3))
    made = AdamP(lr=0.1)([p])
    p.tensor.grad = torch.tensor(GOLDEN[name]["grad"], dtype=torch.float64)
    made.step()
    wanted = torch.tensor(GOLDEN[name]["p1"], dtype=torch.float64)
    torch.testing.assert_close(p.tensor.detach(), wanted, rtol=0, atol=1e-9)


# --------------------------------------------------------------------------------------------- the published package


@pytest.mark.parametrize("case", CASES)
def test_figures_of_the_published_package(case: str) -> None:
    _walk.check_figures(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_package(case: str, dtype: torch.dtype) -> None:
    """200 steps of vectors, matrices, a 3-D tensor and zeros; every other gradient is one that is projected."""
    pytest.importorskip("adamp", reason="NO PARITY TEST: adamp is not installed (pip install --no-deps adamp==0.3.0)")
    _walk.check_published(case, dtype)


def test_equals_the_published_package_in_bfloat16() -> None:
    """Bit by bit where nothing is projected; cosines are taken in float32 here, in bfloat16 there."""
    adamp = pytest.importorskip("adamp", reason="NO PARITY TEST: adamp is not installed")
    a, b = _walk.weights(torch.bfloat16), _walk.weights(torch.bfloat16)
    ours = rooms.parse("optimizers", "adamp:lr=0.01,delta=0")([Tagged(f"{i}", p, "up") for i, p in enumerate(a)])
    found, wanted = _walk.walk(ours, a, 50), _walk.walk(adamp.AdamP(b, lr=0.01, delta=0.0), b, 50)
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_non_contiguous_tensors_step_like_contiguous_ones() -> None:
    """The published package refuses them."""
    plain = torch.arange(1.0, 25.0, dtype=torch.float64).view(6, 4)
    a, b = Parameter(plain.clone().T), Parameter(plain.clone().T.contiguous())
    assert not a.is_contiguous()
    made = [AdamP(lr=0.01, delta=1e9)([Tagged("p", p, "up")]) for p in (a, b)]
    for step in range(5):
        for p, one in zip((a, b), made, strict=True):
            p.grad = _walk.pull(b.detach(), 0, step)
            one.step()
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------ what is promised


def growth(text: str) -> float:
    """How much the norm of a scale-invariant weight grows: a loss of the rows' directions, with noise."""
    random = torch.Generator().manual_seed(0)
    target = torch.nn.functional.normalize(torch.randn(8, 32, generator=random), dim=1)
    p = Parameter(torch.nn.functional.normalize(torch.randn(8, 32, generator=random), dim=1))
    made = rooms.parse("optimizers", text)([Tagged("p", p, "up")])
    for _ in range(300):
        made.zero_grad()
        noise = 0.3 * torch.randn(8, 32, generator=random)
        (-(torch.nn.functional.normalize(p, dim=1) * (target + noise)).sum()).backward()
        made.step()
    return float(p.detach().norm() / sqrt(8))


def test_scale_invariant_weights_keep_their_norm_where_adams_grow() -> None:
    """Without the radial part each step is tangential, which adds lr^2 at second order and no more."""
    assert growth("adamw:lr=0.02") > 1.5 * growth("adamp:lr=0.02")
    assert growth("adamp:lr=0.02,delta=0") == pytest.approx(growth("adamw:lr=0.02"), rel=1e-3)


def test_option_delta() -> None:
    assert not torch.equal(trajectory(AdamP(lr=0.1, delta=0.0)), trajectory(AdamP(lr=0.1, delta=0.1)))
    radial = trajectory(AdamP(lr=0.1, delta=1e9))[0] - START
    assert (radial * START).sum(1).abs().max() < 1e-8


def test_option_wd_ratio() -> None:
    """The stream's first gradient is projected: decay there is wd_ratio of the whole."""
    free, full, half = (
        trajectory(AdamP(lr=0.1, weight_decay=d, wd_ratio=r))[0] for d, r in ((0.0, 1.0), (0.5, 1.0), (0.5, 0.5))
    )
    torch.testing.assert_close(2 * (half - free), full - free, rtol=0, atol=1e-12)
    assert (full - free).abs().max() > 0.01
