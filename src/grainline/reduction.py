"""Sums over a whole optimizer step: the loss, exactly, however the step is split; and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from grainline.types import Batch, LogProbs, Losses, Pairs, wins

Metrics = dict[str, float]

_COUNT = "count of "
_NO_STATE: Mapping[str, Tensor] = {}


def numbers(state: Mapping[str, float]) -> dict[str, Tensor]:
    """An objective's state as it is handed in."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}


def totals(
    objective: Callable[..., Losses],
    forwards: Sequence[Batch],
    accelerator: Accelerator,
    state: Mapping[str, Tensor] = _NO_STATE,
    names: Sequence[str] = (),
) -> dict[str, Tensor]:
    """sum(weight * count) of each term over the whole step and all processes.

    Args:
        state: the objective's own numbers.
        names: outputs of the objective's own modules.
    """
    counts: dict[str, Tensor] = {}
    for batch in forwards:
        nothing = torch.zeros_like(batch.weight)
        silent = batch.logprobs(nothing)._replace(
            kl=nothing, concentration=nothing, activations=nothing[..., None, None]
        )
        heads = dict.fromkeys(names, nothing)
        terms = objective(silent, silent, batch.facts, {**heads, **state}).terms
        add(counts, {name: (batch.facts.weight * term.count).sum().double() for name, term in terms.items()})
    # A term that counts nothing in this step (no desirable row, say) has a sum of 0 too: 0 / tiny is its share.
    return {name: total.clamp(min=1e-30) for name, total in reduce(counts, accelerator).items()}


def share(losses: Losses, weight: Tensor, totals: Mapping[str, Tensor]) -> Tensor:
    """What one forward contributes to the step's loss."""
    parts = [
        term.coefficient * (weight * term.value).sum() / totals[name].to(term.value)
        for name, term in losses.terms.items()
    ]
    return torch.stack(parts).sum()


def add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def reduce(sums: Mapping[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    if accelerator.num_processes == 1:
        return dict(sums)
    # One process may have met an aspect, or a kind of row, that another has not.
    names = sorted({name for names in gather_object([list(sums)]) for name in names})
    sums = {name: sums.get(name, torch.zeros(())) for name in names}
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    flat = torch.stack([value.to(accelerator.device, dtype) for value in sums.values()])
    return dict(zip(sums, accelerator.reduce(flat, "sum").unbind(), strict=True))


# --------------------------------------------------------------------------------------------------------- metrics


def whole(
    objective: Callable[..., Losses],
    policy: LogProbs,
    against: LogProbs | None,
    batch: Batch,
    state: Mapping[str, float],
) -> Losses:
    """What is logged counts every token 1, as evaluation does, so that the two can be compared."""
    given = {**(policy.heads or {}), **numbers(state)}
    with torch.no_grad():
        return objective(policy.whole(), against and against.whole(), batch.facts, given)


def measure(losses: Losses, policy: LogProbs, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
    """Sums of one forward, under TRL's metric names where it has them."""
    answer_B = policy.token.detach().sum(-1)
    if not isinstance(batch.facts, Pairs):
        answer_B = answer_B[: len(batch.facts.ids)]  # mismatched answers stand behind the rows' own
    ones = torch.ones_like(answer_B)
    sums = {
        "loss": loss.detach(),
        "tokens": batch.ids.new_tensor(batch.ids.numel()),
        "rows": ones.new_tensor(len(batch.facts.ids)),
    }
    if isinstance(batch.facts, Pairs):
        chosen_P, rejected_P = answer_B.chunk(2)
        sums |= {"logps/chosen": chosen_P.sum(), "logps/rejected": rejected_P.sum(), "n": ones.sum() / 2}
    else:
        sums |= {"logps/answer": answer_B.sum(), "n": ones.sum()}
        if (reward_B := losses.log.get("rewards/answer")) is not None:
            for kind, of_B in (("desirable", batch.facts.label), ("undesirable", ~batch.facts.label)):
                name = f"rewards/{kind}"
                sums |= {name: (of_B * reward_B).sum(), f"{_COUNT}{name}": of_B.sum()}
    if losses.margin is not None and isinstance(batch.facts, Pairs):
        margin_P = losses.margin
        sums |= {"rewards/margins": margin_P.sum(), "rewards/accuracies": wins(margin_P).sum()}
        # Two that only `watch` reads: do few pairs carry the margin, and does the longer answer win?
        size_P, other_P = policy.mask.sum(-1).chunk(2)
        shorter_P, name = (size_P < other_P).to(margin_P.dtype), "rewards/accuracies_shorter"
        sums |= {"rewards/margins_squared": margin_P.square().sum()}
        sums |= {name: (shorter_P * wins(margin_P)).sum(), f"{_COUNT}{name}": shorter_P.sum()}
        for aspect, better_P in batch.facts.by_aspect():
            name = f"rewards/{aspect}/margins"
            sums |= {name: (better_P * margin_P).sum(), f"{_COUNT}{name}": better_P.abs().sum()}
    sums |= {name: value.sum() for name, value in losses.log.items()}
    together = torch.stack([value.to(loss.dtype) for value in sums.values()])  # one transfer
    return dict(zip(sums, together.detach().cpu().double().unbind(), strict=True))


def means(sums: dict[str, Tensor], accelerator: Accelerator) -> Metrics:
    totals = reduce(sums, accelerator)
    n = totals.pop("n")
    counts = {name: totals.pop(f"{_COUNT}{name}", n) for name in [*totals] if not name.startswith(_COUNT)}
    whole = ("loss", "tokens", "rows")
    return {name: float(totals[name] if name in whole else totals[name] / n) for name, n in counts.items() if n}
