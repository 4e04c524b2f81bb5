"""MaPO: the release's rescaling, masks by hand, and what a mask of one must be."""

from __future__ import annotations

import math

import pytest
import torch

from _token_level import GOLDEN, golden, token_level
from grainline.objectives.mapo import MaPO, token_mask
from grainline.objectives.tdpo import TDPO

CASE = GOLDEN["sparsepo"]["cases"]["mapo_zn_rescale"]


def test_golden_rescale() -> None:
    """The release works through float16, so to 2e-4; the exact numbers stand beside it."""
    activation = golden(CASE["activation"])  # (2, 4, 3) one tensor of three features
    inside = torch.tensor(CASE["loss_mask"], dtype=torch.bool)
    found = token_mask(activation.mean(-1)[..., None, None], inside)
    torch.testing.assert_close(found, golden(CASE["official_output_with_fp16_stats"]), rtol=0, atol=2e-4)
    exact = [row + [0.0] * (4 - len(row)) for row in CASE["exact_minmax"]]
    torch.testing.assert_close(found, golden(exact), rtol=0, atol=1e-9)


def test_families_count_alike_however_many_tensors_they_have() -> None:
    """Family one: two tensors, rescaled to (0, 1, 0.5) and (1, 0, 0.5); family two: one, to (0, 0, 1)."""
    table = golden([[[[0, 9], [5, math.nan]], [[4, 1], [5, math.nan]], [[2, 5], [7, math.nan]]]])
    mask = token_mask(table, torch.tensor([[True, True, True]]))
    assert mask.tolist() == [pytest.approx([(0.5 + 0) / 2, (0.5 + 0) / 2, (0.5 + 1) / 2])]


def test_nothing_to_rescale_is_one() -> None:
    flat = golden([[[[3.0]], [[3.0]]], [[[7.0]], [[1.0]]]])  # a constant; an answer of one token
    mask = token_mask(flat, torch.tensor([[True, True], [True, False]]))
    assert mask.tolist() == [[1.0, 1.0], [1.0, 0.0]]


def test_by_hand() -> None:
    """Where all activations are constant every token counts 1, and the loss is TDPO1's; half of a mask counts half."""
    given = token_level()
    flat = given.reference._replace(activations=torch.ones(4, 6, 1, 1, dtype=torch.float64))
    found = MaPO()(given.policy, flat, given.batch, {}).terms["mapo"].value
    wanted = TDPO(version=1)(given.policy, given.reference, given.batch, {}).terms["tdpo"].value
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    table = torch.zeros(4, 6, 1, 1, dtype=torch.float64)
    table[:, 3] = 1.0  # each answer's fourth column alone speaks
    found = MaPO()(given.policy, given.reference._replace(activations=table), given.batch, {}).terms["mapo"].value
    rho = given.policy.token - given.reference.token
    kl = given.policy.kl
    assert kl is not None
    margin = 0.1 * ((rho + kl)[:2, 3] - (rho + kl)[2:, 3])
    torch.testing.assert_close(found, torch.log1p(torch.exp(-margin)), rtol=1e-9, atol=0)


def test_option_beta() -> None:
    given = token_level()
    flat = given.reference._replace(activations=torch.ones(4, 6, 1, 1, dtype=torch.float64))
    half, whole = (MaPO(beta=beta)(given.policy, flat, given.batch, {}).margin for beta in (0.05, 0.1))
    torch.testing.assert_close(2 * half, whole, rtol=1e-12, atol=0)
