"""Wiring, weights before learning, and the two phases."""

from __future__ import annotations

import pytest
import torch

from _three_units import DYNAMICS, INPUTS, LESSON, WEIGHTS, double
from grainline.rewards import equilibrium as ep

LIKE = double(0.0)


def test_layers_touch_their_neighbours_only() -> None:
    wiring = ep.layered(2, (1, 2, 1), 3, like=LIKE)
    assert wiring.recurrent.tolist() == [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]
    assert wiring.input.tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]
    assert wiring.readout.tolist() == [[0, 0, 0, 1]] * 3
    assert (wiring.bias.tolist(), wiring.offset.tolist()) == ([1] * 4, [1] * 3)


@pytest.mark.parametrize("angle", [0.0, 30.0, 60.0, 90.0])
def test_feedback_stands_at_the_angle_one_asked_for(angle: float) -> None:
    weights = ep.random(ep.layered(4, (60, 60), 2, like=LIKE), angle=angle, seed=0)
    assert ep.angle(weights) == pytest.approx(angle, abs=3 if angle else 1e-5)


def test_weights_have_their_scale_and_stay_on_the_wires() -> None:
    wiring = ep.layered(100, (100, 100), 5, like=LIKE)
    weights = ep.random(wiring, gain=0.5, input_gain=2.0, seed=3)
    assert all((part[mask == 0] == 0).all() for part, mask in zip(weights, wiring, strict=True))
    for part, mask, scale in ((weights.recurrent, wiring.recurrent, 0.05), (weights.input, wiring.input, 0.2)):
        assert float(part[mask > 0].std()) == pytest.approx(scale, rel=0.05)
    assert torch.equal(weights.recurrent, ep.random(wiring, gain=0.5, seed=3).recurrent)
    assert not torch.equal(weights.recurrent, ep.random(wiring, gain=0.5, seed=4).recurrent)


def test_the_field_is_the_equation() -> None:
    rate, drive = DYNAMICS.rate(double([0.1, 0.2, 0.3])), double([1.0, 2.0, 3.0])
    found = ep.field(WEIGHTS, drive, DYNAMICS, lambda r: 10 * r)(double([0.1, 0.2, 0.3]))
    by_hand = [sum(float(WEIGHTS.recurrent[i, j]) * float(rate[0, j]) for j in range(3)) for i in range(3)]
    assert found[0].tolist() == pytest.approx(
        [by_hand[i] + float(drive[0, i]) + 10 * float(rate[0, i]) for i in (0, 1, 2)]
    )


def test_a_nudge_of_zero_leaves_the_free_state() -> None:
    rest = ep.free(WEIGHTS, INPUTS, DYNAMICS)
    found = ep.nudged(WEIGHTS, INPUTS, LESSON.slope, rest.state, double(0.0), DYNAMICS)
    assert torch.allclose(found.state[0], rest.state, atol=1e-13)


def test_a_conjugate_nudge_has_the_conjugate_state() -> None:
    rest = ep.free(WEIGHTS, INPUTS, DYNAMICS)
    beta = torch.tensor([0.1 + 0.2j, 0.1 - 0.2j], dtype=torch.complex128)
    above, below = ep.nudged(WEIGHTS, INPUTS, LESSON.slope, rest.state, beta, DYNAMICS).state
    assert above.imag.abs().max() > 1e-3
    assert torch.allclose(above, below.conj(), atol=1e-12)


def test_a_nudge_up_the_loss_raises_it() -> None:
    rest = ep.free(WEIGHTS, INPUTS, DYNAMICS)
    up, down = ep.nudged(WEIGHTS, INPUTS, LESSON.slope, rest.state, double(0.1, -0.1), DYNAMICS).state
    losses = [float(LESSON.value(WEIGHTS.outputs(DYNAMICS.rate(state)))) for state in (down, rest.state, up)]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_one_unit_rests_where_algebra_says() -> None:
    """Without recurrence u* = V x + b."""
    weights = ep.Weights(double([0.0]), double([2.0]), double(0.5), double([1.0]), double(0.0))
    found = ep.free(weights, double([3.0], [-1.0]), DYNAMICS)
    assert found.state.flatten().tolist() == pytest.approx([6.5, -1.5])


def test_too_strong_a_recurrence_is_loud() -> None:
    strong = WEIGHTS._replace(
        recurrent=40 * double([0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]), bias=double(0.5, 20.5, -19.5)
    )
    with pytest.raises(ep.NotSettled):
        ep.free(strong, INPUTS, ep.Dynamics(step=1.0, most=200))
