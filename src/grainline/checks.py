"""What the loop will not pass over: a start that is not the reference, a loss or a gradient that is no number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from grainline.errors import InvariantError, NonFiniteError
from grainline.types import Batch, LogProbs, Losses


def check_start(
    policy: LogProbs, reference: LogProbs, losses: Losses, objective: Any, tolerance: float
) -> dict[str, float]:
    """Before the first step policy and reference are one model, and the loss is the objective's constant.

    ``tolerance``: nats a token; infinite for an adapter that starts apart, of which both are only told.
    """
    apart = float((policy.token.detach() - reference.token).abs().max())
    if not apart <= tolerance:
        raise InvariantError(
            f"before the first step the policy differs from the reference by {apart:.1e} nats a token "
            f"(allowed: {tolerance:.0e})",
            instead="The reference is not the model that training starts from: check reference and model.adapter.",
        )
    value = float(sum(t.coefficient * t.value.detach().sum() / t.count.sum() for t in losses.terms.values()))
    constant = getattr(objective, "constant", None)
    # A sum of T token errors grows like their root if they are independent; ten times that is a fault, not rounding.
    allowed = max(1e-4, 10 * tolerance * policy.mask.shape[1] ** 0.5)
    if constant is not None and abs(value - constant) > allowed:
        raise InvariantError(f"before the first step the loss is {value:.6f}, the objective's constant {constant:.6f}")
    return {"start/policy_minus_reference": apart, "start/loss": value} | (
        {} if constant is None else {"start/constant": constant}
    )


def check_finite(losses: Losses, batch: Batch, step: int) -> None:
    bad = torch.zeros(len(batch.facts.ids), dtype=torch.bool, device=batch.ids.device)
    for term in losses.terms.values():
        bad |= ~term.value.detach().isfinite()
    if bool(bad.any()):
        rows = [row for row, is_bad in zip(batch.facts.ids, bad.tolist(), strict=True) if is_bad]
        raise NonFiniteError(
            f"non-finite loss at step {step + 1} from {len(rows)} rows: {', '.join(rows[:5])}",
            instead="Look at these rows, lower the learning rate, or set model.dtype=float32.",
        )


def clip(accelerator: Accelerator, parameters: Iterable[nn.Parameter], limit: float, step: int) -> float:
    norm = float(accelerator.clip_grad_norm_(parameters, limit or math.inf))
    if not math.isfinite(norm):
        raise NonFiniteError(
            f"the gradient's norm is {norm} at step {step + 1}, every loss was finite",
            instead="Lower the learning rate, or set model.dtype=float32.",
        )
    return norm
