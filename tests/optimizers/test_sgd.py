"""SGD: two steps by hand, and torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

import _walk
from grainline.errors import SpecError
from grainline.optimizers.sgd import SGD
from grainline.types import Tagged


@pytest.mark.parametrize("nesterov", [False, True])
def test_two_steps_by_hand(nesterov: bool) -> None:
    p = Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    made = SGD(lr=0.1, momentum=0.5, weight_decay=0.3, nesterov=nesterov)([Tagged("p", p, "up")])
    at, kept = 2.0, 0.0
    for gradient in (4.0, -1.0):
        p.grad = torch.tensor([[gradient]], dtype=torch.float64)
        made.step()
        pulled = gradient + 0.3 * at
        kept = 0.5 * kept + pulled
        at -= 0.1 * (pulled + 0.5 * kept if nesterov else kept)
        assert p.item() == pytest.approx(at, abs=1e-12)


def test_equals_torch() -> None:
    a, b = _walk.weights(torch.float32), _walk.weights(torch.float32)
    ours = SGD(lr=0.01)([Tagged(f"{i}", p, "up") for i, p in enumerate(a)])
    found, wanted = _walk.walk(ours, a, 20), _walk.walk(torch.optim.SGD(b, lr=0.01, momentum=0.9), b, 20)
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(SpecError, match="momentum, which is 0"):
        SGD(momentum=0.0, nesterov=True)([Tagged("p", Parameter(torch.ones(1)), "up")])
