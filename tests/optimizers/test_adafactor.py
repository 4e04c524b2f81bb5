"""Adafactor: a step by hand, torch's, and how little it keeps."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch.nn import Parameter

import _walk
from grainline.optimizers.adafactor import Adafactor
from grainline.types import Tagged


def first(start: list, gradient: list, **options: float) -> torch.Tensor:
    p = Parameter(torch.tensor(start, dtype=torch.float64))
    made = Adafactor(**{"lr": 0.1} | options)([Tagged("p", p, "up")])
    p.grad = torch.tensor(gradient, dtype=torch.float64)
    made.step()
    return p.detach() - torch.tensor(start, dtype=torch.float64)


def test_first_step_by_hand() -> None:
    """The first memory is 1 - 1 = 0: rows and columns are this gradient's. Its square has rank 1, so every coordinate
    moves by the step, lr times the root mean square of the weights."""
    move = first([[3.0, 4.0], [0.0, 0.0]], [[1.0, -2.0], [3.0, 6.0]], clip=1.5)
    size = 0.1 * sqrt((9 + 16) / 4)
    wanted = -size * torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(move, wanted, rtol=1e-6, atol=0)


def test_equals_torch() -> None:
    a, b = _walk.weights(torch.float32), _walk.weights(torch.float32)
    ours = Adafactor()([Tagged(f"{i}", p, "up") for i, p in enumerate(a)])
    found, wanted = _walk.walk(ours, a, 20), _walk.walk(torch.optim.Adafactor(b), b, 20)
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_it_keeps_a_row_and_a_column() -> None:
    p = Parameter(torch.ones(64, 32))
    made = Adafactor()([Tagged("p", p, "up")])
    p.grad = torch.ones(64, 32)
    made.step()
    kept = [value.numel() for value in made.state[p].values()]
    assert sum(kept) == 64 + 32 + 1  # and the count of steps


def test_option_clip() -> None:
    """A move is no larger than this, in root mean square, before it is scaled: here the second, of a gradient that has
    grown tenfold."""
    moves = []
    for clip in (1.0, 2.0):
        p = Parameter(torch.ones(1, 1, dtype=torch.float64))
        made = Adafactor(lr=0.1, clip=clip)([Tagged("p", p, "up")])
        for gradient in (1.0, 10.0):
            before, p.grad = p.item(), torch.full((1, 1), gradient, dtype=torch.float64)
            made.step()
        moves.append((before - p.item()) / (0.1 * before))
    memory = 1 - 2**-0.8
    assert moves == pytest.approx([1.0, 10 / sqrt(memory + (1 - memory) * 100)], rel=1e-5)


def test_option_least() -> None:
    """Weights of zero move by lr times this."""
    assert first([[0.0]], [[2.0]], least=0.01).item() == pytest.approx(-0.1 * 0.01)


def test_option_beta2_decay() -> None:
    p = [Parameter(torch.ones(2, 2)) for _ in range(2)]
    made = [Adafactor(lr=0.1, beta2_decay=d)([Tagged("p", t, "up")]) for t, d in zip(p, (-0.8, 0.0), strict=True)]
    for gradient in (1.0, 0.1):
        for t, one in zip(p, made, strict=True):
            t.grad = torch.full((2, 2), gradient)
            one.step()
    assert p[0].detach().min() > p[1].detach().max()  # the large gradient is remembered, or it is not
