"""SODA against the figures of the official code's formula, and the properties that the paper promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from grainline import rooms
from grainline.adapters._seam import attach
from grainline.adapters._spectral import singular_values
from grainline.adapters.soda import SODA
from grainline.errors import SpecError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))["soda_svd"]


class OneLayer(nn.Module):
    """The smallest model: one matrix, in float64."""

    def __init__(self, weight: Any, *, bias: bool = False) -> None:
        super().__init__()
        matrix = torch.as_tensor(weight, dtype=torch.float64)
        self.proj = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias, dtype=torch.float64)
        self.proj.weight.data = matrix.clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


def adapted(weight: Any, *, bias: bool = False, **options: Any) -> Any:
    return attach(SODA(targets=("proj",), **options), OneLayer(weight, bias=bias))


def change(model: Any) -> Any:
    return model.base_model.model.proj.changes["default"]


def forwarded(model: Any) -> torch.Tensor:
    """The weight that the forward uses, seen through unit vectors."""
    width = model.base_model.model.proj.base_layer.in_features
    return model.base_model.model(torch.eye(width, dtype=torch.float64)).T.detach()


def random(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def turn(model: Any) -> None:
    torch.manual_seed(1)
    for factor in change(model).soda_rotation.factors:
        factor.generator.data.normal_()


def test_golden() -> None:
    """Rotations of the golden are plane rotations: for angle t Cayley's generator has tan(t / 2)."""
    model = adapted(GOLDEN["W"])
    one = change(model)
    assert one.soda_rotation.sizes == [1, 2, 2]
    one.soda_delta.data = torch.tensor(GOLDEN["delta"], dtype=torch.float64)
    for factor, name in zip(one.soda_rotation.factors[1:], ("Q1", "Q2"), strict=True):
        (c, minus_s), _ = GOLDEN[name]
        tangent = -minus_s / (1 + c)
        # Q = (I - K) (I + K)^-1 with K = (P - P') / 2 is [[c, -s], [s, c]] for K = [[0, t], [-t, 0]]
        factor.generator.data = torch.tensor([[0.0, 2 * tangent], [0.0, 0.0]], dtype=torch.float64)
        assert torch.allclose(factor.matrix(), torch.tensor(GOLDEN[name], dtype=torch.float64), atol=1e-9)
    assert torch.allclose(one.soda_rotation.matrix(), torch.tensor(GOLDEN["R_kron"], dtype=torch.float64), atol=1e-9)
    expected = torch.tensor(GOLDEN["W_soda"], dtype=torch.float64)
    assert torch.allclose(forwarded(model), expected, atol=1e-8)
    assert torch.allclose(one.merged(torch.tensor(GOLDEN["W"], dtype=torch.float64)), expected, atol=1e-8)


@pytest.mark.parametrize("options", [{}, {"rank": 3}, {"form": "qr"}], ids=str)
@pytest.mark.parametrize("shape", [(6, 8), (8, 6)])
def test_forward_is_the_merged_weight(options: dict[str, Any], shape: tuple[int, int]) -> None:
    model = adapted(random(*shape), bias=True, **options)
    turn(model)
    change(model).soda_delta.data.normal_()
    x = random(5, shape[1])
    said = model.base_model.model(x)
    model.merge_adapter()
    assert torch.allclose(model.base_model.model(x), said, atol=1e-10)


def test_a_rotation_keeps_the_spectrum() -> None:
    model = adapted(random(6, 8))
    turn(model)
    assert torch.allclose(singular_values(forwarded(model)), singular_values(random(6, 8)), atol=1e-9)


def test_no_shift_turns_a_singular_value_over() -> None:
    """relu: a value that is pushed below 0 stays at 0."""
    model = adapted(torch.diag(torch.tensor([3.0, 1.0])))
    change(model).soda_delta.data = torch.tensor([1.0, -5.0], dtype=torch.float64)
    assert torch.allclose(forwarded(model), torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)), atol=1e-12)


def test_option_form() -> None:
    """qr: W = [[3, 4]] = 5 * [0.6, 0.8], so a shift of 1 makes it 6 long."""
    model = adapted([[3.0, 4.0]], form="qr")
    change(model).soda_delta.data = torch.ones(1, dtype=torch.float64)
    assert torch.allclose(forwarded(model), torch.tensor([[3.6, 4.8]], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(6, 8), (8, 6)])
def test_the_triangular_factor_has_a_positive_diagonal(shape: tuple[int, int]) -> None:
    weight = random(*shape)
    basis = change(adapted(weight, form="qr")).basis_NI
    lower = weight @ basis.T
    assert torch.allclose(lower @ basis, weight, atol=1e-10)
    assert torch.allclose(
        lower[: min(shape)].triu(1), torch.zeros(min(shape), min(shape), dtype=torch.float64), atol=1e-10
    )
    assert (lower.diagonal() > 0).all()


@pytest.mark.parametrize(("options", "shifts"), [({}, 6), ({"rank": 4}, 4), ({"form": "qr"}, 6)], ids=str)
def test_what_trains(options: dict[str, Any], shifts: int) -> None:
    model = adapted(random(6, 12), **options)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == shifts + 2**2 + 2**2 + 3**2  # 12 = 2 x 2 x 3


def test_option_rank() -> None:
    model = adapted(torch.diag(torch.tensor([3.0, 2.0, 1.0])), rank=2)
    change(model).soda_delta.data += 1
    assert torch.allclose(forwarded(model), torch.diag(torch.tensor([4.0, 3.0, 1.0], dtype=torch.float64)))
    with pytest.raises(SpecError, match="rank goes with form=svd"):
        rooms.parse("adapters", "soda:form=qr,rank=2")


def test_option_targets(tiny_llama: Any) -> None:
    names = SODA(targets=("q_proj",)).config(tiny_llama).target_modules
    assert {name.rpartition(".")[2] for name in names} == {"q_proj"}


def test_option_layers(tiny_llama: Any) -> None:
    assert all(".layers.1." in name for name in SODA(layers=(1,)).config(tiny_llama).target_modules)
