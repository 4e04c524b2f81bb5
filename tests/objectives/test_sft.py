"""SFT is the token mean of every causal language-model trainer."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from grainline.objectives.sft import SFT
from grainline.types import LogProbs, Losses, Pairs, Rows


def mean(losses: Losses) -> torch.Tensor:
    (term,) = losses.terms.values()
    return term.value.sum() / term.count.sum()


def logprobs(token: torch.Tensor, weight: torch.Tensor) -> LogProbs:
    return LogProbs(token, weight != 0, weight)


def pairs(count: int) -> Pairs:
    return Pairs(tuple(map(str, range(count))), torch.ones(count), torch.full((count,), math.nan))


def test_by_hand_long_answers_count_for_more() -> None:
    """Three tokens of 1 nat and one of 5: the mean over tokens is 8 / 4, not the mean over answers, (1 + 5) / 2."""
    token = torch.tensor([[-1.0, -1.0, -1.0], [-5.0, 0.0, 0.0]])
    weight = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    losses = SFT()(logprobs(token, weight), None, pairs(2), {})
    assert mean(losses).item() == (3 * 1 + 5) / (3 + 1)


def test_equals_cross_entropy_with_ignored_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 11, generator=generator, dtype=torch.float64)
    labels = torch.randint(11, (3, 6), generator=generator)
    mask = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    token = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0] * mask
    losses = SFT()(LogProbs(token, mask, mask.double()), None, pairs(3), {})
    expected = cross_entropy(logits.flatten(0, 1), labels.masked_fill(~mask, -100).flatten(), ignore_index=-100)
    torch.testing.assert_close(mean(losses), expected, rtol=1e-12, atol=0)


def test_of_pairs_only_the_chosen_answers_are_learnt() -> None:
    token = torch.tensor([[-1.0, -2.0], [-3.0, -9.0]], requires_grad=True)
    mean(SFT()(logprobs(token, torch.ones(2, 2)), None, pairs(1), {})).backward()
    assert token.grad is not None
    assert token.grad.tolist() == [[-0.5, -0.5], [0.0, 0.0]]


def test_of_labelled_rows_only_the_desirable_ones_are_learnt() -> None:
    token = torch.tensor([[-1.0, -2.0], [-3.0, -9.0]], requires_grad=True)
    rows = Rows(("a", "b"), torch.ones(2), torch.tensor([False, True]))
    loss = mean(SFT()(logprobs(token, torch.ones(2, 2)), None, rows, {}))
    loss.backward()
    assert loss.item() == (3 + 9) / 2
    assert token.grad is not None
    assert token.grad.tolist() == [[0.0, 0.0], [-0.5, -0.5]]


def test_a_negative_weight_unlearns_and_is_counted() -> None:
    token, weight = torch.tensor([[-1.0, -4.0]]), torch.tensor([[1.0, -0.5]])
    assert mean(SFT()(logprobs(token, weight), None, pairs(1), {})).item() == pytest.approx((1 - 0.5 * 4) / 1.5)
