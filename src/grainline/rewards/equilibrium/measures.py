"""What one watches: how far the way back is from the way forward, and how far an error is from the true one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grainline.rewards.equilibrium.network import Weights


def cosine(found_BU: Tensor, true_BU: Tensor) -> float:
    """Cosine of all rows together; 1 is the same direction."""
    return float(torch.nn.functional.cosine_similarity(found_BU.flatten(), true_BU.flatten(), dim=0))


def distance(found_BU: Tensor, true_BU: Tensor) -> float:
    """|found - true| / |true|, all rows together."""
    return float((found_BU - true_BU).norm() / true_BU.norm())


def angle(weights: Weights) -> float:
    """Degrees between forward weights (under the diagonal) and feedback weights (above it, transposed)."""
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine(weights.recurrent.tril(), weights.recurrent.triu().T)))))


def symmetry(jacobian_UU: Tensor) -> float:
    """|S| / (|S| + |A|) of a Jacobian, S and A its symmetric and antisymmetric part: 1 is symmetric."""
    symmetric, skew = (jacobian_UU + jacobian_UU.T).norm(), (jacobian_UU - jacobian_UU.T).norm()
    return float(symmetric / (symmetric + skew))
