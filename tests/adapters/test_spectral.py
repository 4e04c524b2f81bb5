"""Singular values and vectors: against torch's own decomposition, and with signs that do not depend on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from grainline.adapters._spectral import factors, random_singular_values, rank_reaching, ranks, singular_values

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adapters.json").read_text(encoding="utf-8"))


@pytest.fixture(params=[(20, 33), (33, 20)])
def weight(request: pytest.FixtureRequest) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(request.param) @ torch.diag(0.8 ** torch.arange(request.param[1]))


def test_singular_values_are_torchs(weight: torch.Tensor) -> None:
    assert torch.allclose(singular_values(weight), torch.linalg.svdvals(weight.double()), atol=1e-7)
    assert torch.allclose(
        singular_values(weight.bfloat16()), torch.linalg.svdvals(weight.bfloat16().double()), atol=1e-7
    )


@pytest.mark.parametrize("randomised", [False, True])
def test_factors_rebuild_the_weight(weight: torch.Tensor, randomised: bool) -> None:
    U, S, V = factors(weight, 5, randomised=randomised)
    best = torch.linalg.svdvals(weight)[5:].norm()
    assert (weight - U @ torch.diag(S) @ V.T).norm() == pytest.approx(float(best), rel=1e-4)
    assert torch.allclose(U.T @ U, torch.eye(5), atol=1e-5)
    assert torch.allclose(V.T @ V, torch.eye(5), atol=1e-5)
    assert torch.equal(factors(weight, 5, randomised=randomised).U_OK, U)


def test_signs_are_fixed(weight: torch.Tensor) -> None:
    U, S, V = factors(weight)
    flipped = factors((U * -1) @ torch.diag(S) @ (V * -1).T)
    assert (U.abs().argmax(dim=0) == flipped.U_OK.abs().argmax(dim=0)).all()
    assert torch.allclose(flipped.U_OK[:, :8], U[:, :8], atol=1e-3)
    assert (U.gather(0, U.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_rank_that_reaches_a_share() -> None:
    golden = GOLDEN["sara_rank"]
    values = torch.tensor(golden["S"], dtype=torch.float64)
    for share, reach, below in zip(
        golden["thresholds"], golden["k_smallest_reaching"], golden["k_count_strictly_below"], strict=True
    ):
        assert rank_reaching(values, share) == reach
        assert rank_reaching(values, share, strictly_below=True) == max(1, below)  # never no rank at all


def test_a_random_matrix_is_known_without_its_weights() -> None:
    for shape, known in GOLDEN["sara_rank_of_gaussian_weight"]["values"].items():
        outputs, inputs = map(int, shape.removeprefix("gaussian_").split("x"))
        values = random_singular_values(outputs, inputs)
        for share, rank in known.items():
            assert abs(rank_reaching(values, float(share)) - rank) <= 1


def test_ranks_of_a_model(weight: torch.Tensor) -> None:
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0]), nn.Conv2d(3, 4, 5))
    model[0].weight.data = weight
    expected = rank_reaching(torch.linalg.svdvals(weight), 0.5)
    assert ranks(model, ["0"], 0.5) == {"0": expected}
    assert ranks(model, ["0", "1"], 0.99, most=2) == {"0": 2, "1": 2}
    assert (
        ranks(model.to("meta"), ["0"], 0.5)["0"] > expected
    )  # random matrices are flatter than a weight that falls off
