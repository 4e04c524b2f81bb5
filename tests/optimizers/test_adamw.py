"""AdamW: one step by hand, equality with torch, and who decays."""

from __future__ import annotations

import pytest
import torch

from grainline import rooms
from grainline.errors import SpecError
from grainline.optimizers.adamw import AdamW
from grainline.types import Tagged


def tag(name: str, values: list, role: str) -> Tagged:
    return Tagged(name, torch.nn.Parameter(torch.tensor(values, dtype=torch.float64)), role)


def test_two_steps_by_hand() -> None:
    p = tag("p", [[2.0]], "down")
    made = AdamW(lr=0.1, betas=(0.9, 0.99), eps=0.5, weight_decay=0.3)([p])
    p.tensor.grad = torch.tensor([[4.0]], dtype=torch.float64)
    made.step()
    # m / (1 - 0.9) = g = 4; v / (1 - 0.99) = g^2 = 16
    first = 2.0 * (1 - 0.1 * 0.3) - 0.1 * 4.0 / (4.0 + 0.5)
    assert p.tensor.item() == pytest.approx(first, abs=1e-12)
    p.tensor.grad = torch.tensor([[-1.0]], dtype=torch.float64)
    made.step()
    m, v = 0.9 * 0.1 * 4.0 + 0.1 * -1.0, 0.99 * 0.01 * 16.0 + 0.01 * 1.0
    second = first * (1 - 0.1 * 0.3) - 0.1 * (m / (1 - 0.9**2)) / ((v / (1 - 0.99**2)) ** 0.5 + 0.5)
    assert p.tensor.item() == pytest.approx(second, abs=1e-12)


def test_equals_torch() -> None:
    torch.manual_seed(0)
    start, pulls = torch.randn(3, 4), torch.randn(7, 3, 4)
    ours, theirs = Tagged("p", torch.nn.Parameter(start.clone()), "up"), torch.nn.Parameter(start.clone())
    a = AdamW(lr=0.01, weight_decay=0.1)([ours])
    b = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    for pull in pulls:
        ours.tensor.grad, theirs.grad = pull.clone(), pull.clone()
        a.step()
        b.step()
    assert torch.equal(ours.tensor, theirs)


def test_vectors_do_not_decay() -> None:
    matrix, vector = tag("matrix", [[1.0, 1.0]], "weight"), tag("bias", [1.0, 1.0], "weight")
    made = AdamW(lr=0.1, weight_decay=0.5)([matrix, vector])
    for p in (matrix, vector):
        p.tensor.grad = torch.zeros_like(p.tensor)
    made.step()
    assert matrix.tensor.tolist() == [[0.95, 0.95]]
    assert vector.tensor.tolist() == [1.0, 1.0]


def test_lora_plus() -> None:
    made = rooms.parse("optimizers", "adamw:lr=0.001,lr_scale.up=16")(
        [tag("a", [[1.0]], "down"), tag("b", [[1.0]], "up")]
    )
    assert {group["role"]: group["lr"] for group in made.param_groups} == {"down": 0.001, "up": 0.016}


@pytest.mark.parametrize("text", ["adamw:lr=0", "adamw:betas=[0.9, 1.0]", "adamw:eps=0", "adamw:lr_scale.up=-1"])
def test_impossible_options(text: str) -> None:
    with pytest.raises(SpecError):
        rooms.parse("optimizers", text)


@pytest.mark.parametrize("kernel", ["loop", "foreach", "fused"])
def test_option_kernel(kernel: str) -> None:
    """What reaches torch, and numbers that differ in the last digits at most."""
    a, b = tag("p", [[1.0, -2.0]], "up"), tag("p", [[1.0, -2.0]], "up")
    made, plain = rooms.parse("optimizers", f"adamw:lr=0.1,kernel={kernel}")([a]), AdamW(lr=0.1)([b])
    group = made.param_groups[0]
    assert (group["foreach"], group["fused"]) == (kernel == "foreach", kernel == "fused")
    assert plain.param_groups[0]["foreach"] is plain.param_groups[0]["fused"] is None
    for step in range(5):
        for p, one in ((a, made), (b, plain)):
            p.tensor.grad = torch.tensor([[1.0, 0.1 * step]], dtype=torch.float64)
            one.step()
    torch.testing.assert_close(a.tensor, b.tensor, rtol=0, atol=1e-9)
