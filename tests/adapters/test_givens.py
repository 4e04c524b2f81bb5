"""Trees of Givens rotations are the products that they say, and turn any vector onto the first axis."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from grainline.adapters._givens import Givens, tree, turned

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))
DOUBLE: Any = {"dtype": torch.float64}


def G(width: int, i: int, j: int, t: float) -> torch.Tensor:
    """A Givens rotation, written out."""
    matrix = torch.eye(width, dtype=torch.float64)
    matrix[i, i] = matrix[j, j] = math.cos(t)
    matrix[i, j], matrix[j, i] = -math.sin(t), math.sin(t)
    return matrix


@pytest.mark.parametrize(
    ("width", "pairs"),
    [
        # Halves of 6: 0-3, 1-4, 2-5; of the 3 left: 0-2 (1 goes on); of the 2 left: 0-1.
        (6, [(0, 3), (1, 4), (2, 5), (0, 2), (0, 1)]),
        # Groups 0-3, 4-7 and 8-11; then their firsts and the 12 that is left: 0-8, 4-12, 0-4.
        (13, [(a + i, a + j) for a in (0, 4, 8) for i, j in ((0, 2), (1, 3), (0, 1))] + [(0, 8), (4, 12), (0, 4)]),
    ],
)
def test_a_tree_is_the_product_of_its_rotations(width: int, pairs: list[tuple[int, int]]) -> None:
    rotation = Givens(width, group=7 if width == 6 else 4, **DOUBLE)
    torch.manual_seed(0)
    for angles in rotation.parameters():
        angles.data.normal_()
    towards = [G(width, *pair, t) for pair, t in zip(pairs, rotation.towards.tolist(), strict=True)]
    back = [G(width, *pair, t) for pair, t in zip(pairs, rotation.back.tolist(), strict=True)]
    F = functools.reduce(lambda product, g: g @ product, towards)  # the first rotation acts first
    B = functools.reduce(lambda product, g: product @ g, back)  # the last one does
    assert torch.allclose(rotation.matrix(), B @ F, atol=1e-12)


def test_the_tree_of_neighbours_is_ours_with_coordinates_renamed() -> None:
    golden = GOLDEN["givens"]
    order = [0, 2, 1, 3]  # bits reversed: neighbours 0-1, 2-3 and then 0-2 become halves 0-2, 1-3 and then 0-1
    found = turned(torch.eye(4, **DOUBLE), torch.tensor(golden["theta"], **DOUBLE), tree(4)).T
    assert torch.allclose(found, torch.tensor(golden["tree_strides_1_2"], **DOUBLE)[order][:, order], atol=1e-9)


def test_one_tree_turns_any_vector_onto_the_first_axis() -> None:
    x = torch.tensor([3.0, -1.0, 2.0, 0.5, -4.0], **DOUBLE)
    y, angles = x.clone(), []
    for _, gap, pairs in tree(5):
        for i in range(pairs):
            angle = -math.atan2(y[i + gap], y[i])
            y = G(5, i, i + gap, angle) @ y
            angles.append(angle)
    assert torch.allclose(
        turned(x, torch.tensor(angles, **DOUBLE), tree(5)), torch.tensor([x.norm(), 0, 0, 0, 0], **DOUBLE)
    )


@pytest.mark.parametrize("width", [1, 2, 3, 48, 576, 1000])
def test_a_tree_has_one_angle_less_than_the_width(width: int) -> None:
    assert sum(step.pairs for step in tree(width)) == width - 1
    assert len(tree(width)) == math.ceil(math.log2(width))
