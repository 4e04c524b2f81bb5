"""Orthogonal maps: orthogonal to rounding, undone by their transpose, equal to hand-written matrices."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from grainline.adapters._givens import Givens, Pairs
from grainline.adapters._orthogonal import (
    Cayley,
    HouseholderPair,
    Kronecker,
    OrthogonalMap,
    kronecker_sizes,
    mirrored,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))
DOUBLE: Any = {"dtype": torch.float64}
MAPS = {
    "givens": lambda: Givens(7, **DOUBLE),
    "givens in groups": lambda: Givens(8, group=4, **DOUBLE),
    "givens in groups with a rest": lambda: Givens(13, group=4, **DOUBLE),
    "pairs": lambda: Pairs(7, **DOUBLE),
    "householder": lambda: HouseholderPair(7, **DOUBLE),
    "cayley": lambda: Cayley(7, **DOUBLE),
    "kronecker": lambda: Kronecker([Cayley(2, **DOUBLE), Givens(3, **DOUBLE), Pairs(2, **DOUBLE)]),
}


def moved(rotation: OrthogonalMap) -> OrthogonalMap:
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in rotation.parameters():
            tensor.add_(0.7 * torch.randn_like(tensor))
    return rotation


def G(width: int, i: int, j: int, t: float) -> torch.Tensor:
    """A Givens rotation, written out."""
    matrix = torch.eye(width, dtype=torch.float64)
    matrix[i, i] = matrix[j, j] = math.cos(t)
    matrix[i, j], matrix[j, i] = -math.sin(t), math.sin(t)
    return matrix


@pytest.mark.parametrize("name", MAPS)
def test_fresh_is_the_identity(name: str) -> None:
    rotation = MAPS[name]()
    assert torch.allclose(rotation.matrix(), torch.eye(rotation.width, **DOUBLE), atol=1e-14)
    assert rotation.distance() < 1e-13


@pytest.mark.parametrize("name", MAPS)
def test_orthogonal_and_undone_by_its_transpose(name: str) -> None:
    rotation = moved(MAPS[name]())
    R, x = rotation.matrix(), torch.randn(3, 5, rotation.width, **DOUBLE)
    assert rotation.distance() > 0.5
    assert torch.allclose(R @ R.T, torch.eye(rotation.width, **DOUBLE), atol=1e-12)
    assert torch.allclose(rotation(x), x @ R.T, atol=1e-12)
    assert torch.allclose(rotation.transposed(x), x @ R, atol=1e-12)
    assert torch.allclose(rotation.transposed(rotation(x)), x, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_gradients(name: str) -> None:
    """Finite differences against backward, which for Givens rotations is written by hand."""
    rotation = moved(MAPS[name]())
    names, values = zip(*rotation.named_parameters(), strict=True)

    def both(x: torch.Tensor, *tensors: torch.Tensor) -> Any:
        given = dict(zip(names, tensors, strict=True))
        there = torch.func.functional_call(rotation, given, (x,)) ** 2
        return there, torch.func.functional_call(_Transposed(rotation), {f"map.{k}": v for k, v in given.items()}, (x,))

    x = torch.randn(2, 3, rotation.width, requires_grad=True, **DOUBLE)
    assert torch.autograd.gradcheck(both, (x, *values))


class _Transposed(torch.nn.Module):
    def __init__(self, rotation: OrthogonalMap) -> None:
        super().__init__()
        self.map = rotation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.map.transposed(x)


@pytest.mark.parametrize("name", ["givens", "pairs", "householder"])
def test_backward_keeps_one_activation(name: str) -> None:
    rotation, kept = MAPS[name](), []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(10_000, 7, requires_grad=True, **DOUBLE)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rotation(x)
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() // 8 for tensor in kept}
    assert sum(sizes.values()) < 10_000 * 7 + 1000  # input or output; and what is as small as the map itself


def test_a_householder_pair_turns_its_plane_by_twice_the_angle() -> None:
    pair = HouseholderPair(3, **DOUBLE)
    pair.v.data, pair.u.data = torch.tensor([2.0, 0, 0], **DOUBLE), torch.tensor([3.0, 3.0, 0], **DOUBLE)  # 45 degrees
    assert torch.allclose(pair.matrix(), G(3, 0, 1, math.pi / 2), atol=1e-12)
    assert torch.allclose(mirrored(torch.tensor([1.0, 2, 3]), torch.tensor([[0, 5.0, 0]])), torch.tensor([1.0, -2, 3]))


def test_cayley_of_two_dimensions() -> None:
    cayley = Cayley(2, **DOUBLE)
    cayley.generator.data = torch.tensor([[0.0, 2 * math.tan(0.3)], [0.0, 0.0]], **DOUBLE)  # K = [[0, t], [-t, 0]]
    # (I - K)(I + K)^-1 with t = tan a turns by 2 a; here K_01 > 0, so G(0, 1, 2 a).
    assert torch.allclose(cayley.matrix(), G(2, 0, 1, 0.6), atol=1e-12)


def test_kronecker_is_the_kronecker_product() -> None:
    rotation = moved(MAPS["kronecker"]())
    factors = [factor.matrix().detach().contiguous() for factor in rotation.factors]
    assert torch.allclose(rotation.matrix(), torch.kron(torch.kron(*factors[:2]), factors[2]), atol=1e-12)


def test_kronecker_sizes() -> None:
    for width, sizes in GOLDEN["kronecker_triples"].items():
        assert sum(n * n for n in kronecker_sizes(int(width))) == sum(n * n for n in sizes)
        assert math.prod(kronecker_sizes(int(width))) == int(width)
