"""Answers of given log-probs, for tests of objectives: no model is run.

Two answers a pair, chosen rows first, each answer's tokens equally likely, so that sums and means are easy by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from grainline import rooms
from grainline.types import LogProbs, Losses, Pairs

GOLDEN = json.loads((Path(__file__).parent / "golden" / "objectives.json").read_text(encoding="utf-8"))


def answers(
    chosen: Sequence[float], rejected: Sequence[float], lengths: Sequence[int] = (), dtype: torch.dtype = torch.float64
) -> LogProbs:
    """Answers whose log-probs add up to the given numbers; two tokens each, or as many as ``lengths`` says."""
    total_B = torch.tensor([*chosen, *rejected], dtype=dtype)
    length_B = torch.tensor(lengths or [2] * len(total_B))
    mask_BT = torch.arange(int(length_B.max())) < length_B[:, None]
    token_BT = (total_B / length_B)[:, None] * mask_BT
    return LogProbs(token_BT.requires_grad_(), mask_BT, mask_BT.to(dtype))


def pairs(count: int, **numbers: Sequence[float]) -> Pairs:
    """Facts of ``count`` pairs; ``numbers`` are further columns of the data."""
    table = torch.tensor([list(column) for column in numbers.values()], dtype=torch.float64).reshape(-1, count).T
    ids = tuple(map(str, range(count)))
    return Pairs(ids, torch.ones(count), torch.full((count,), math.nan), columns=tuple(numbers), numbers=table)


def losses(objective: Any, policy: LogProbs, reference: LogProbs | None = None, **numbers: Sequence[float]) -> Losses:
    """What an objective, or the text of one, says of these answers."""
    objective = rooms.resolve("objectives", objective)
    return objective(policy, reference, pairs(len(policy.token) // 2, **numbers), {})


def loss(objective: Any, h_chosen: float, h_rejected: float, **numbers: float) -> float:
    """The loss of one pair whose log-ratios are given."""
    found = losses(
        objective, answers([h_chosen], [h_rejected]), answers([0.0], [0.0]), **{k: [v] for k, v in numbers.items()}
    )
    return sum((term.coefficient * term.value for term in found.terms.values()), torch.zeros(1)).item()


def slopes(objective: Any, h_chosen: float, h_rejected: float, **numbers: float) -> tuple[float, float]:
    """The loss's slope by the log-ratio of the chosen and of the rejected answer."""
    policy = answers([h_chosen], [h_rejected])
    found = losses(objective, policy, answers([0.0], [0.0]), **{k: [v] for k, v in numbers.items()})
    sum((term.coefficient * term.value for term in found.terms.values()), torch.zeros(1)).sum().backward()
    assert policy.token.grad is not None
    return policy.token.grad[0, 0].item(), policy.token.grad[1, 0].item()


def matches(objective: str, term: str, section: str) -> None:
    """Whether loss and gradient equal what other code said of these answers, to the 10 digits it printed."""
    stated = GOLDEN[section]["inputs"]
    case = GOLDEN[section]["cases"][objective]
    if section == "trl_pairwise":
        lengths = stated["chosen_completion_lengths"] + stated["rejected_completion_lengths"]
        policy = answers(stated["chosen_logps"], stated["rejected_logps"], lengths)
        reference = answers(stated["ref_chosen_logps"], stated["ref_rejected_logps"], lengths)
        slope = case["grad_chosen_logps"] + case["grad_rejected_logps"]
    else:
        lengths = stated["chosen_lengths"] + stated["rejected_lengths"]
        policy, reference = answers(stated["chosen_logps_sum"], stated["rejected_logps_sum"], lengths), None
        slope = case["grad_chosen_input"] + case["grad_rejected_input"]
        if case["input_is_average_logp"]:  # theirs is the slope by the mean, ours by each token
            slope = [one / length for one, length in zip(slope, lengths, strict=True)]
    loss_P = losses(objective, policy, reference).terms[term].value
    _close(loss_P, case["per_pair"])
    loss_P.mean().backward()
    assert policy.token.grad is not None
    _close(policy.token.grad[:, 0], slope)


def _close(found: Tensor, expected: Sequence[float]) -> None:
    assert found.tolist() == pytest.approx(expected, rel=2e-6, abs=1e-11)
