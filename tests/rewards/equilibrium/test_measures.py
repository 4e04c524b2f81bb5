"""Angles and distances, by hand."""

from __future__ import annotations

import pytest
import torch

from _three_units import COSINE, DELTA, RESPONSE, SYMMETRIC, SYMMETRY, WEIGHTS, double
from grainline.rewards import equilibrium as ep


def test_cosine() -> None:
    assert ep.cosine(RESPONSE[None], DELTA[None]) == pytest.approx(COSINE, abs=1e-9)
    assert ep.cosine(double([1.0, 0.0], [0.0, 1.0]), double([3.0, 0.0], [0.0, 3.0])) == pytest.approx(1)
    assert ep.cosine(double([1.0, 0.0]), double([0.0, 1.0])) == 0


def test_distance() -> None:
    assert ep.distance(double([3.0, 4.0]), double([0.0, 4.0])) == pytest.approx(3 / 4)


def test_angle() -> None:
    assert ep.angle(SYMMETRIC) == pytest.approx(0, abs=1e-5)
    skew = WEIGHTS._replace(recurrent=WEIGHTS.recurrent.tril() - WEIGHTS.recurrent.tril().T)
    assert ep.angle(skew) == pytest.approx(180, abs=1e-5)


def test_symmetry() -> None:
    assert ep.symmetry(WEIGHTS.recurrent - torch.eye(3)) == pytest.approx(SYMMETRY, abs=1e-9)
    assert ep.symmetry(SYMMETRIC.recurrent) == 1
    assert ep.symmetry(double([0.0, 1.0], [-1.0, 0.0])) == 0
