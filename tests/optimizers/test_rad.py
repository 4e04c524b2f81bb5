"""RAD: a step by hand, the published package and its figures, Adam as a limit, and the schedule's collapse."""

from __future__ import annotations

from math import exp, sqrt

import pytest
import torch
from torch.nn import Parameter

import _walk
from _toy import Toy
from _walk import trajectory
from grainline import rooms
from grainline.errors import SpecError
from grainline.optimizers import _seam
from grainline.optimizers.rad import RAD, scheduled
from grainline.runs import align
from grainline.types import Tagged

CASES = [case for case in _walk.CASES if case.startswith("rad")]
GOLDEN = _walk.golden("rad")


def one(values: list, spec: RAD, gradients: list[float], steps: int) -> list[float]:
    """Where a single weight is after each gradient."""
    p, places = Parameter(torch.tensor(values, dtype=torch.float64)), []
    made = spec([Tagged("p", p, "up")], steps=steps)
    for gradient in gradients:
        p.grad = torch.full_like(p, gradient)
        made.step()
        places.append(p.item())
    return places


def test_two_steps_by_hand() -> None:
    spec = RAD(lr=0.1, betas=(0.9, 0.99), delta=2.0, order=2, zeta=0.5, weight_decay=0.3)
    first, second = one([[2.0]], spec, [4.0, -1.0], 7)
    m, v = 0.1 * 4.0, 0.01 * 16.0
    inverse = 0.5 * (1 / sqrt(4 * v + 0.5) + 1 / sqrt(4 * v + 0.5 / 0.81))
    wanted = 2.0 * (1 - 0.1 * 0.3) - 0.1 / (1 - 0.9) * sqrt(1 - 0.99) * m * inverse
    assert first == pytest.approx(wanted, abs=1e-12)
    m, v = 0.9 * m - 0.1 * 1.0, 0.99 * v + 0.01 * 1.0
    inverse = 0.5 * (1 / sqrt(4 * v + 0.5) + 1 / sqrt(4 * v + 0.5 / 0.81))
    wanted = wanted * (1 - 0.1 * 0.3) - 0.1 / (1 - 0.9**2) * sqrt(1 - 0.99**2) * m * inverse
    assert second == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"zeta": 1e-16}, "default_delta1_zeta1e_16"),
        ({"zeta": 1e-16, "weight_decay": 0.01}, "delta1_zeta1e_16_wd"),
        ({"delta": 2.0, "zeta_cap": 0.0}, "delta2_zeta_sched_maxiter10"),
        ({"order": 2, "zeta": 0.01}, "order2_zeta0p01"),
        ({"zeta": 1.0}, "zeta_none_maxiter_none_is_1"),
    ],
)
def test_golden_trajectories(options: dict, key: str) -> None:
    found = trajectory(RAD(lr=0.1, **options))
    torch.testing.assert_close(found, torch.tensor(GOLDEN[key], dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_schedule() -> None:
    for k, wanted in GOLDEN["zeta_schedule_values"].items():
        assert scheduled(int(k), 10) == pytest.approx(wanted, abs=1e-12)
    assert scheduled(50, 100) == pytest.approx(exp(-20))
    assert (scheduled(1, 10**6), scheduled(11, 10)) == (1e-16, 1.0)


@pytest.mark.parametrize("case", CASES)
def test_figures_of_the_published_package(case: str) -> None:
    _walk.check_figures(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_package(case: str, dtype: torch.dtype) -> None:
    """200 steps of vectors, matrices, a 3-D tensor and zeros."""
    pytest.importorskip(
        "rad.optim.rad",
        reason="NO PARITY TEST: pytorch-rad is not installed (pip install --no-deps pytorch-rad==0.2.1)",
    )
    _walk.check_published(case, dtype)


# ------------------------------------------------------------------------------------------------ what is promised


def test_with_delta_1_and_a_tiny_zeta_it_is_adam() -> None:
    a, b = _walk.weights(torch.float64), _walk.weights(torch.float64)
    ours = RAD(lr=0.01, zeta=1e-30)([Tagged(f"{i}", p, "up") for i, p in enumerate(a)])
    found, wanted = _walk.walk(ours, a), _walk.walk(torch.optim.Adam(b, lr=0.01, eps=1e-15), b)
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-9)


def test_no_step_is_faster_than_light() -> None:
    """However large and steady the gradient, at delta 4 a weight moves at most lr / 4 a step."""
    places = one([[0.0]], RAD(lr=0.1, delta=4.0, zeta=1e-16), [1e6] * 20, 20)
    steps = [a - b for a, b in zip([0.0, *places], places, strict=False)]
    assert steps == pytest.approx([0.1 / 4.0] * 20, rel=1e-6)


def test_option_zeta_cap() -> None:
    """Without it the last steps under an adapter's gradients (1e-4) collapse to lr times the gradient; with it they
    shrink by sqrt(1 + cap) where a coordinate is as large as the mean."""
    last = {}
    for cap in (0.0, 1.0, 3.0):
        places = one([[1.0]], RAD(lr=0.1, zeta_cap=cap), [1e-4] * 100, 100)
        last[cap] = places[-2] - places[-1]
    assert last[0.0] == pytest.approx(0.1 * 1e-4 * sqrt(1 - 0.999**100), rel=1e-3)
    assert last[1.0] == pytest.approx(0.1 / sqrt(2), rel=1e-3)
    assert last[3.0] == pytest.approx(0.1 / 2, rel=1e-3)


def test_option_zeta() -> None:
    """A gradient far below the root of a fixed zeta moves a weight in proportion; far above, not."""
    small, large = (1 - one([[1.0]], RAD(lr=0.1, zeta=1e-4), [g], 1)[0] for g in (1e-6, 2e-6))
    assert large == pytest.approx(2 * small, rel=1e-3)


def test_option_delta() -> None:
    near, far = (1 - one([[1.0]], RAD(lr=0.1, delta=d, zeta=1e-16), [1.0], 1)[0] for d in (2.0, 1.0))
    assert far == pytest.approx(2 * near)


def test_option_order() -> None:
    places = [one([[1.0]], RAD(lr=0.1, order=order, zeta=1.0), [0.1], 1)[0] for order in (1, 2)]
    assert places[1] > places[0]  # zeta / beta1^2 is larger


def test_the_schedule_follows_the_planned_steps() -> None:
    spec = rooms.parse("optimizers", "rad:zeta_cap=0")
    assert spec.needs == {"steps"}
    ends = []
    for steps in (10, 1000):
        p = Parameter(torch.ones(1))
        made = _seam.build(spec, [Tagged("p", p, "up")], steps=steps)
        for _ in range(10):
            p.grad = torch.full((1,), 1e-3)
            made.step()
        ends.append(1 - p.item())
    assert ends[0] < 0.95 * ends[1]
    with pytest.raises(SpecError, match="needs the number of steps"):
        spec([Tagged("p", p, "up")])
    assert RAD(zeta=1e-16)([Tagged("p", p, "up")])


def test_a_run_tells_it_how_many_steps_it_plans(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    told, make = [], RAD.__call__
    monkeypatch.setattr(
        RAD, "__call__", lambda self, tags, *, steps: told.append(steps) or make(self, tags, steps=steps)
    )
    align(**toy.choices(toy.root / "rad", optimizer="rad:lr=1e-3", steps=3))
    assert told == [3]
