"""Derivatives from a circle, held against series whose coefficients are known."""

from __future__ import annotations

import math

import pytest
import torch

from _three_units import double
from grainline.rewards import equilibrium as ep

LIKE = double(0.0)


def around(function: object, points: int, radius: float) -> tuple[torch.Tensor, torch.Tensor, ep.Teaching]:
    """The responses of ``function`` at the points of a circle, and at zero."""
    teaching = ep.Teaching(points=points, radius=radius)
    beta_K1 = ep.circle(teaching, LIKE).beta_K[:, None]
    return function(beta_K1), function(LIKE), teaching  # type: ignore[operator]


@pytest.mark.parametrize(("points", "computed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)])
def test_conjugate_points_are_counted_not_computed(points: int, computed: int) -> None:
    found = ep.circle(ep.Teaching(points=points, radius=0.3), LIKE)
    assert len(found.beta_K) == computed
    assert found.count_K.sum() == points
    assert found.beta_K.is_complex() == (points > 2)
    assert torch.allclose(found.beta_K.abs(), torch.full_like(found.count_K, 0.3))


@pytest.mark.parametrize("points", [1, 2, 3, 4, 5, 6])
def test_the_error_is_the_aliased_coefficients_and_nothing_else(points: int) -> None:
    """N points confuse a_1 of exp, 1, with a_{1 + kN} |beta|^{kN}, the coefficients being 1 / m!."""
    radius = 0.4
    found = ep.derivative(*around(torch.exp, points, radius))
    aliases = sum(radius ** (k * points) / math.factorial(1 + k * points) for k in range(1, 20))
    assert float(found) == pytest.approx(1 + aliases, abs=1e-14)


@pytest.mark.parametrize("points", [2, 3, 4, 6])
def test_the_excess_is_the_aliased_mean(points: int) -> None:
    radius = 0.4
    found = ep.excess(*around(torch.exp, points, radius))
    aliases = sum(radius ** (k * points) / math.factorial(k * points) for k in range(1, 20))
    assert float(found) == pytest.approx(aliases, abs=1e-14)


def test_a_pole_inside_the_circle_defeats_any_number_of_points_and_the_excess_tells() -> None:
    def pole(beta: torch.Tensor) -> torch.Tensor:
        return 1 / (1 - 2 * beta)  # at 1/2; a_1 = 2

    for points in (8, 64):
        inside, outside = around(pole, points, 0.4), around(pole, points, 0.6)
        assert abs(float(ep.derivative(*outside)) - 2) > 1
        assert abs(float(ep.excess(*outside))) > 0.9
        assert abs(float(ep.derivative(*inside)) - 2) < 3 * 0.8**points
