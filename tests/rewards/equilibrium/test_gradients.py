"""Estimated, exact and true errors: golden numbers, autograd through the relaxation, what theory says of the gap."""

from __future__ import annotations

import pytest
import torch

from _three_units import (
    DELTA,
    DYNAMICS,
    ESTIMATES,
    INPUTS,
    LESSON,
    RATE,
    RESPONSE,
    RESPONSE_GRADIENT,
    STATE,
    SYMMETRIC,
    TRUE_GRADIENT,
    WEIGHTS,
    WIRING,
)
from grainline.rewards import equilibrium as ep

REST = ep.free(WEIGHTS, INPUTS, DYNAMICS)


def estimated(points: int, radius: float, weights: ep.Weights = WEIGHTS) -> ep.Estimate:
    rest = ep.free(weights, INPUTS, DYNAMICS)
    return ep.estimate(weights, INPUTS, LESSON.slope, rest, ep.Teaching(points=points, radius=radius), DYNAMICS)


def close(found: torch.Tensor, golden: torch.Tensor) -> bool:
    return torch.allclose(found, golden.expand_as(found), rtol=0, atol=1e-9)


def test_three_units_rest_where_they_should() -> None:
    assert close(REST.state, STATE)
    assert close(DYNAMICS.rate(REST.state), RATE)


def test_three_units_errors() -> None:
    assert close(ep.exact(WEIGHTS, LESSON.slope, REST, DYNAMICS), RESPONSE)
    assert close(ep.adjoint(WEIGHTS, LESSON.slope, REST, DYNAMICS), DELTA)


@pytest.mark.parametrize(("radius", "points"), list(ESTIMATES))
def test_three_units_estimates(radius: float, points: int) -> None:
    assert close(estimated(points, radius).error, torch.tensor(ESTIMATES[radius, points], dtype=torch.float64))


@pytest.mark.parametrize(("error", "golden"), [(RESPONSE, RESPONSE_GRADIENT), (DELTA, TRUE_GRADIENT)])
def test_three_units_gradients(error: torch.Tensor, golden: torch.Tensor) -> None:
    felt = LESSON.slope(WEIGHTS.outputs(RATE[None]))
    assert close(ep.gradient(WIRING, INPUTS, RATE[None], error[None], felt).recurrent, golden)


@pytest.mark.parametrize("points", [1, 2, 4, 6])
def test_halving_the_circle_divides_the_error_by_two_to_the_n(points: int) -> None:
    wide, narrow = (
        float((estimated(points, radius).error - ep.exact(WEIGHTS, LESSON.slope, REST, DYNAMICS)).norm())
        for radius in (0.2, 0.1)
    )
    assert wide / narrow == pytest.approx(2**points, rel=0.35)


def test_symmetric_weights_give_the_true_error_and_others_do_not() -> None:
    rest = ep.free(SYMMETRIC, INPUTS, DYNAMICS)
    true = ep.adjoint(SYMMETRIC, LESSON.slope, rest, DYNAMICS)
    assert torch.allclose(ep.exact(SYMMETRIC, LESSON.slope, rest, DYNAMICS), true, rtol=1e-12, atol=0)
    assert ep.distance(estimated(8, 0.05, SYMMETRIC).error, true) < 1e-9
    assert ep.distance(estimated(8, 0.05).error, ep.adjoint(WEIGHTS, LESSON.slope, REST, DYNAMICS)) > 0.1


def test_a_circle_past_a_pole_is_told_by_its_excess() -> None:
    """At |beta| = 1 the golden errors are off by more than their size for every N; at 0.05 all is well."""
    assert ep.distance(estimated(8, 1.0).error, RESPONSE[None]) > 1
    assert estimated(8, 1.0).excess.abs().max() > 1e3 * estimated(8, 0.05).excess.abs().max()


@pytest.fixture(scope="module")
def layers() -> tuple[ep.Wiring, ep.Weights, ep.Lesson]:
    luck = torch.Generator().manual_seed(1)
    features = torch.randn(6, 4, generator=luck, dtype=torch.float64)
    wiring = ep.layered(4, (5, 4), 3, like=features)
    target = torch.nn.functional.one_hot(torch.arange(6) % 3).double()
    return wiring, ep.random(wiring, angle=90, seed=2), ep.Lesson.of(ep.CROSS_ENTROPY, features, target)


def test_the_adjoint_gradient_is_autograd_through_the_relaxation(
    layers: tuple[ep.Wiring, ep.Weights, ep.Lesson],
) -> None:
    wiring, weights, lesson = layers
    rest = ep.free(weights, lesson.features, DYNAMICS)
    error = ep.adjoint(weights, lesson.slope, rest, DYNAMICS)
    rate = DYNAMICS.rate(rest.state)
    found = ep.gradient(wiring, lesson.features, rate, error, lesson.slope(weights.outputs(rate)))
    leaves = ep.Weights(*(part.clone().requires_grad_() for part in weights))
    outputs = leaves.outputs(DYNAMICS.rate(ep.free(leaves, lesson.features, DYNAMICS).state))
    true = torch.autograd.grad(lesson.value(outputs), list(leaves))
    for name, part, its_truth, mask in zip(ep.Weights._fields, found, true, wiring, strict=True):
        assert torch.allclose(part, its_truth * mask, rtol=1e-8, atol=1e-12), name


def test_the_estimate_is_the_response_of_layers_too(layers: tuple[ep.Wiring, ep.Weights, ep.Lesson]) -> None:
    _, weights, lesson = layers
    rest = ep.free(weights, lesson.features, DYNAMICS)
    exact = ep.exact(weights, lesson.slope, rest, DYNAMICS)
    gaps = [
        ep.distance(
            ep.estimate(
                weights, lesson.features, lesson.slope, rest, ep.Teaching(points=n, radius=0.05), DYNAMICS
            ).error,
            exact,
        )
        for n in (1, 2, 4, 6)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1e-3
    assert gaps[-1] < 1e-6


def test_tied_weights_count_both_uses() -> None:
    """dL/ds of W = S, s shared by (i, j) and (j, i), is the sum of both entries: finite differences say so."""
    felt = LESSON.slope(SYMMETRIC.outputs(DYNAMICS.rate(ep.free(SYMMETRIC, INPUTS, DYNAMICS).state)))
    rest = ep.free(SYMMETRIC, INPUTS, DYNAMICS)
    error = ep.exact(SYMMETRIC, LESSON.slope, rest, DYNAMICS)
    found = ep.tied(ep.gradient(WIRING, INPUTS, DYNAMICS.rate(rest.state), error, felt)).recurrent
    both = torch.zeros(3, 3, dtype=torch.float64)
    both[0, 1] = both[1, 0] = 1e-5

    def loss(sign: int) -> float:
        moved = SYMMETRIC._replace(recurrent=SYMMETRIC.recurrent + sign * both)
        return float(LESSON.value(ep.predict(moved, INPUTS, DYNAMICS)))

    assert float(found[0, 1]) == pytest.approx((loss(1) - loss(-1)) / 2e-5, rel=1e-6)
