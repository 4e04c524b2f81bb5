"""Losses, their derivatives, and how examples are weighed."""

from __future__ import annotations

import math

import pytest
import torch

from _three_units import double
from grainline.errors import DataError
from grainline.rewards import equilibrium as ep

ORDINAL = ep.ordinal(double([-1.0, 0.5], [0.0, 1.0]), double(1.0, 2.0))
KINDS = {
    "cross-entropy": (ep.CROSS_ENTROPY, double([1.0, 0.0], [0.3, 0.7])),
    "squares": (ep.SQUARES, double([1.0, -2.0], [0.3, 0.7])),
    "likelihood": (ep.LIKELIHOOD, double([1.0, 0.0], [0.3, 0.7])),
    "ordinal": (ORDINAL, double([1.0, 2.0], [3.0, 2.0])),
}
OUTPUTS = double([0.4, -1.2], [2.0, 0.1])


@pytest.mark.parametrize("name", list(KINDS))
def test_a_slope_is_the_derivative(name: str) -> None:
    kind, target = KINDS[name]
    leaf = OUTPUTS.clone().requires_grad_()
    true = torch.autograd.grad(kind.value(leaf, target).sum(), leaf)[0]
    assert torch.allclose(kind.slope(OUTPUTS, target), true, atol=1e-12)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_slope_is_holomorphic(name: str) -> None:
    """A step to the side and a step upwards see the same derivative (Cauchy and Riemann)."""
    kind, target = KINDS[name]
    h = torch.tensor([1e-6, 0.0], dtype=torch.float64)
    aside = (kind.slope(OUTPUTS + h, target) - kind.slope(OUTPUTS - h, target)) / 2e-6
    above = (kind.slope(OUTPUTS + 1j * h, target) - kind.slope(OUTPUTS - 1j * h, target)) / 2e-6j
    assert torch.allclose(above, aside.to(above), atol=1e-8)


def test_ordinal_by_hand() -> None:
    """One output at 0, thresholds -1 and 1/2, target 2 of levels 1 and 2: passed the first, not the second."""
    kind = ep.ordinal(double([-1.0, 0.5]), double(1.0, 2.0))
    by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-0.5))) / 2
    assert float(kind.value(double([0.0]), double([2.0]))) == pytest.approx(by_hand)


def test_cross_entropy_is_the_usual_one() -> None:
    """The loss of a row is the sum over classes, however many: |beta| = 0.5 is the paper's 0.5."""
    outputs, label = (
        torch.randn(7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        torch.arange(7),
    )
    lesson = ep.Lesson.of(ep.CROSS_ENTROPY, outputs, torch.nn.functional.one_hot(label, 10).double())
    assert float(lesson.value(outputs)) == pytest.approx(float(torch.nn.functional.cross_entropy(outputs, label)))
    assert torch.allclose(lesson.slope(outputs), outputs.softmax(1) - lesson.target)


def test_what_nobody_labelled_teaches_nothing() -> None:
    target = double([1.0, math.nan], [2.0, 3.0])
    lesson = ep.Lesson.of(ep.SQUARES, double([0.0], [0.0]), target)
    assert lesson.weight.tolist() == [[1, 0], [1, 1]]
    assert float(lesson.value(double([0.0, 99.0], [0.0, 0.0]))) == pytest.approx((1 + 4 + 9) / 2 / 2)
    assert lesson.slope(double([0.0, 99.0], [0.0, 0.0])).tolist() == [[-1, 0], [-2, -3]]


def test_weights_weigh_and_their_scale_does_not() -> None:
    for weight in (double(3.0, 1.0), double([6.0], [2.0])):
        lesson = ep.Lesson.of(ep.SQUARES, double([0.0], [0.0]), double([1.0], [2.0]), weight)
        assert float(lesson.value(double([0.0], [0.0]))) == pytest.approx((3 * 0.5 + 1 * 2.0) / 4)


def test_an_even_lesson_has_weighty_examples_apart() -> None:
    weight = double([4.0, 2.0], [0.0, 0.0], [3.0, 3.0])
    even, apart = ep.Lesson.of(ep.SQUARES, double([0.0], [0.0], [0.0]), torch.ones_like(weight), weight).even()
    assert even.weight.tolist() == [[1, 0.5], [0, 0], [1, 1]]
    assert apart.tolist() == pytest.approx([4 / 3, 0, 1])  # the mean of 4, 2, 3 and 3 is brought to 1
    paired = ep.Lesson.of(ep.LIKELIHOOD, torch.zeros(4, 1), torch.ones(2, 1), torch.tensor([3.0, 1.0]), paired=True)
    assert paired.even()[1].tolist() == [1.5, 0.5, 1.5, 0.5]


def test_a_lesson_without_a_label_is_an_error() -> None:
    with pytest.raises(DataError, match="no target"):
        ep.Lesson.of(ep.SQUARES, double([0.0]), double([math.nan]))


def test_a_pair_is_the_model_of_bradley_and_terry() -> None:
    lesson = ep.Lesson.of(ep.LIKELIHOOD, double([1.0], [2.0], [3.0], [4.0]), double([1.0], [1.0]), paired=True)
    outputs = double([2.0], [0.0], [0.5], [1.0])  # chosen, chosen, rejected, rejected
    loss = (math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(1.0))) / 2
    assert float(lesson.value(outputs)) == pytest.approx(loss)
    leaf = outputs.clone().requires_grad_()
    true = torch.autograd.grad(2 * lesson.value(leaf), leaf)[0]
    assert torch.allclose(lesson.slope(outputs), true)


def test_taking_a_pair_takes_both_rows() -> None:
    lesson = ep.Lesson.of(ep.LIKELIHOOD, double([1.0], [2.0], [3.0], [4.0]), double([1.0], [0.0]), paired=True)
    taken = lesson.take(torch.tensor([1]))
    assert taken.features.flatten().tolist() == [2, 4]
    assert taken.target.flatten().tolist() == [0]


def test_slopes_of_several_phases_at_once() -> None:
    lesson = ep.Lesson.of(ep.LIKELIHOOD, double([1.0], [2.0]), double([1.0]), paired=True)
    phases = torch.stack([double([2.0], [0.0]), double([1.0], [1.0])])
    assert torch.allclose(lesson.slope(phases), torch.stack([lesson.slope(phase) for phase in phases]))
