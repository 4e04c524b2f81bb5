"""The homeostatic loss: golden number, autograd, the noise that estimates it, and that it does what it is for."""

from __future__ import annotations

import pytest
import torch

from _three_units import ASYMMETRY, SYMMETRIC, WEIGHTS
from grainline.rewards import equilibrium as ep


def luck() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_three_units() -> None:
    """J = W - I: (tr J^T J - tr J J) / n, from its definition and from the golden number."""
    jacobian = WEIGHTS.recurrent - torch.eye(3)
    defined = (torch.trace(jacobian.T @ jacobian) - torch.trace(jacobian @ jacobian)) / 3
    assert float(ep.asymmetry(WEIGHTS)) == pytest.approx(ASYMMETRY, abs=1e-12)
    assert float(ep.asymmetry(WEIGHTS)) == pytest.approx(float(defined), abs=1e-12)
    assert float(ep.asymmetry(SYMMETRIC)) == 0


def test_the_gradient_is_autograd() -> None:
    leaf = WEIGHTS.recurrent.clone().requires_grad_()
    true = torch.autograd.grad(ep.asymmetry(WEIGHTS._replace(recurrent=leaf)), leaf)[0]
    assert torch.allclose(ep.asymmetry_gradient(WEIGHTS), true, rtol=1e-12, atol=1e-15)


def test_noise_estimates_loss_and_gradient() -> None:
    at = torch.zeros(2000, 3, dtype=torch.float64)
    loss = ep.noisy(lambda rate: rate @ WEIGHTS.recurrent.T - rate, at, draws=20, luck=luck())
    gradient = ep.noisy_gradient(WEIGHTS, at, draws=20, luck=luck())
    assert float(loss) == pytest.approx(ASYMMETRY, rel=0.05)
    assert ep.distance(gradient, ep.asymmetry_gradient(WEIGHTS)) < 0.05


def test_noise_serves_any_map() -> None:
    """The Jacobian of (r_1 r_2, 0) at (2, 3) is [[3, 2], [0, 0]]: L = (13 - 9) / 2."""
    at = torch.tensor([[2.0, 3.0]], dtype=torch.float64).repeat(4000, 1)
    found = ep.noisy(lambda r: torch.stack([r[:, 0] * r[:, 1], 0 * r[:, 0]], 1), at, draws=20, luck=luck())
    assert float(found) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("draws", [0, 5])
def test_descending_it_makes_estimates_true(draws: int) -> None:
    """Homeostasis alone, from feedback that knows nothing of the way forward."""
    features = torch.randn(8, 4, generator=luck(), dtype=torch.float64)
    wiring, dynamics = ep.layered(4, (5, 4), 3, like=features), ep.Dynamics(tolerance=1e-12)
    weights = ep.random(wiring, angle=90, seed=1)
    lesson = ep.Lesson.of(ep.SQUARES, features, torch.ones(8, 3, dtype=torch.float64))
    drawn = luck()

    def truth(weights: ep.Weights) -> float:
        rest = ep.free(weights, features, dynamics)
        return ep.cosine(*(solve(weights, lesson.slope, rest, dynamics) for solve in (ep.exact, ep.adjoint)))

    before, angle, loss, cosine = weights, ep.angle(weights), float(ep.asymmetry(weights)), truth(weights)
    for _ in range(100):
        noise = (
            ep.noisy_gradient(weights, torch.zeros(8, 9, dtype=torch.float64), draws=draws, luck=drawn)
            if draws
            else None
        )
        slope = ep.asymmetry_gradient(weights) if noise is None else noise
        weights = weights._replace(recurrent=weights.recurrent - 0.1 * slope * wiring.recurrent)
    assert angle > 60
    assert ep.angle(weights) < 0.1 * angle
    assert float(ep.asymmetry(weights)) < 0.01 * loss
    assert cosine < 0.99 < 0.9999 < truth(weights)
    if not draws:  # what is symmetric already stays as it is
        assert torch.allclose(weights.recurrent + weights.recurrent.T, before.recurrent + before.recurrent.T)
