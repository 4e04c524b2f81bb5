"""Activations, relaxation, and the noise that is made where nothing comes to rest."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from _three_units import double
from grainline.rewards import equilibrium as ep


def test_logistic_at_known_places() -> None:
    assert torch.allclose(ep.logistic(double(0.5, 0.0)), double(0.5, 1 / (1 + 2.718281828459045**2)))


@pytest.mark.parametrize("activation", ["logistic", "dsilu", "tanh"])
def test_slopes_are_derivatives_and_rates_are_holomorphic(activation: str) -> None:
    dynamics = ep.Dynamics(activation=activation)  # type: ignore[arg-type]
    u = torch.linspace(-2, 3, 21, dtype=torch.float64)
    centred = (dynamics.rate(u + 1e-5) - dynamics.rate(u - 1e-5)) / 2e-5
    upwards = (dynamics.rate(u + 1e-5j) - dynamics.rate(u - 1e-5j)) / 2e-5j  # Cauchy-Riemann: the same, sideways
    assert torch.allclose(dynamics.slope(u), centred, atol=1e-9)
    assert torch.allclose(dynamics.slope(u).to(upwards), upwards, atol=1e-9)


@pytest.mark.parametrize("step", [0.25, 0.5, 1.0])
def test_where_it_rests_does_not_depend_on_the_step(step: float) -> None:
    """cos u = u at the number of Dottie."""
    found = ep.settle(torch.cos, double([0.0], [2.0]), ep.Dynamics(step=step, tolerance=1e-13))
    assert torch.allclose(found.state, torch.full((2, 1), 0.7390851332151607, dtype=torch.float64), atol=1e-12)
    assert found.residual.max() <= 1e-13
    assert found.steps > 0


def test_what_rests_already_takes_no_step() -> None:
    assert ep.settle(lambda u: u, double([1.0]), ep.Dynamics()).steps == 0


def swing(u: torch.Tensor) -> torch.Tensor:
    """The first row tends to 1; the second is thrown from side to side, further each time."""
    return torch.stack([torch.ones_like(u[0]), -4 * u[1]])


def test_no_rest_is_an_error_that_says_how_many_and_what_to_do() -> None:
    with pytest.raises(ep.NotSettled, match=r"1 of 2 states still move after 50 steps.*smaller step"):
        ep.settle(swing, double([0.0], [1.0]), ep.Dynamics(most=50))


def test_no_rest_stands_in_the_result_if_one_asks_for_that() -> None:
    dynamics = ep.Dynamics(most=50, strict=False)
    found = ep.settle(swing, double([0.0], [1.0]), dynamics)
    assert found.steps == 50
    assert found.at_rest(dynamics).tolist() == [True, False]


def test_nan_is_not_at_rest() -> None:
    with pytest.raises(ep.NotSettled, match="1 of 1"):
        ep.settle(lambda u: u * torch.nan, double([1.0]), ep.Dynamics(most=3))


def test_a_smaller_step_settles_units_that_inhibit_each_other() -> None:
    """u = -1.5 u swings for ever at h = 1 (factor -1.5 a step) and settles at h = 1/2 (factor -0.25)."""
    with pytest.raises(ep.NotSettled):
        ep.settle(lambda u: -1.5 * u, double([1.0]), ep.Dynamics(step=1.0))
    assert abs(ep.settle(lambda u: -1.5 * u, double([1.0]), ep.Dynamics(step=0.5)).state) < 1e-9


@pytest.mark.parametrize("wrong", [{"step": 0.0}, {"step": 1.5}, {"tolerance": 0.0}, {"most": 0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        ep.Dynamics(**wrong)  # type: ignore[arg-type]
