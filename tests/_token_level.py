"""The golden token-level inputs: logits by formula, as the log-probs and divergences that an objective is given."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grainline.types import LogProbs, Pairs

GOLDEN = json.loads((Path(__file__).parent / "golden" / "objectives.json").read_text(encoding="utf-8"))
INPUTS = GOLDEN["token_level"]


class TokenLevel(NamedTuple):
    policy: LogProbs  # with kl
    reference: LogProbs
    chosen: Tensor  # (2, 7, 6) the policy's logits, leaves
    rejected: Tensor
    batch: Pairs


def logits(side: str) -> Tensor:
    """(2, 7, 6) by the formula that stands in the golden file."""
    n = INPUTS[side]
    b, t, v = (torch.arange(1, size + 1, dtype=torch.float64) for size in (2, 7, 6))
    angle = n["a"] * b[:, None, None] + n["k"] * t[None, :, None] + n["c"] * v + n["phase"]
    return n["amp"] * torch.sin(angle)


def token_level() -> TokenLevel:
    """Both answers of two pairs, token by token, divergences by the definition, with gradients to the logits."""
    leaves = {side: logits(f"policy_{side}").requires_grad_() for side in ("chosen", "rejected")}
    sides = [_said(leaves[side], logits(f"ref_{side}"), INPUTS[f"labels_{side}"]) for side in leaves]
    token, kl, reference, mask = (torch.cat(parts) for parts in zip(*sides, strict=True))
    batch = Pairs(("a", "b"), torch.ones(2, dtype=torch.float64), torch.full((2,), math.nan))
    weight = mask.to(token.dtype)
    return TokenLevel(LogProbs(token, mask, weight, kl=kl), LogProbs(reference, mask, weight), **leaves, batch=batch)


def _said(policy: Tensor, reference: Tensor, labels: list[list[int]]) -> tuple[Tensor, ...]:
    target = torch.tensor(labels)[:, 1:]
    mask = target != INPUTS["ignore_index"]
    logp, logq = (x[:, :-1].log_softmax(-1) for x in (policy, reference))
    kl = (logq.exp() * (logq - logp)).sum(-1) * mask
    token, other = (x.gather(-1, target.clamp(min=0)[..., None])[..., 0] * mask for x in (logp, logq))
    return token, kl, other, mask


def golden(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
