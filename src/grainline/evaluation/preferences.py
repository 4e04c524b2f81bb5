"""Does the policy prefer what people preferred? Accuracy, margin and likelihood on held-out rows, with intervals.

==============================  ======================================================================================
metric                          meaning
==============================  ======================================================================================
rewards/accuracies              share of pairs whose chosen answer has the larger implied reward; a tie counts one half
rewards/margins                 mean implied reward of chosen minus rejected, nats times beta
likelihood/accuracies           share of pairs whose chosen answer has the larger mean log-prob a token under the
                                policy alone: says something before training too, when every reward is 0
logps/chosen, logps/rejected    mean log-prob of the answers, nats
rewards/desirable, undesirable  mean implied reward of labelled answers, by their label, where the objective has one
logps/chosen_per_token          mean of each chosen answer's log-prob a token, nats: falls when chosen is displaced
==============================  ======================================================================================

For each aspect that the data judges there are also ``rewards/ASPECT/margins`` and ``rewards/ASPECT/accuracies``: over
the pairs whose answers differ in that aspect, how much more reward the better one has, and how often it has more.

Every token counts 1 here, whatever the supervision says, so that no annotation of a held-out row helps to predict its
label. ``*_low`` and ``*_high`` bound accuracies and margins by a 95 % bootstrap interval over prompts, since rows of
one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from grainline.data.collate import Layout, Speaking, collate, pack
from grainline.evaluation.intervals import mean_interval
from grainline.types import Batch, Example, LogProbs, Losses, wins

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 64
"""Examples that are packed together; more would only sort longer."""


Look = Callable[[Batch, LogProbs, "LogProbs | None"], list[dict[str, Any]]]
"""(batch, policy, reference) -> what else is to be known of each row."""


class Evaluation(NamedTuple):
    metrics: dict[str, float]
    rows: list[dict[str, Any]]  # one dict a row, in the data's order


def forwards(
    examples: Sequence[Example], *, rows: Speaking, layout: Layout, max_tokens: int, share: tuple[int, int] = (0, 1)
) -> list[Batch]:
    """All of ``examples`` as forwards; ``share`` = (k, n) keeps every n-th from the k-th on (this process's part)."""
    windows = (examples[i : i + WINDOW] for i in range(0, len(examples), WINDOW))
    packed = [part for window in windows for part in pack(window, max_tokens=max_tokens, layout=layout)]
    return [collate(part, rows=rows, layout=layout) for part in packed[share[0] :: share[1]]]


def evaluate(
    score: Callable[..., LogProbs],
    objective: Any,
    batches: Sequence[Batch],
    *,
    reference: Callable[[Batch], LogProbs] | None,
    device: Any = "cpu",
    look: Look | None = None,
) -> list[dict[str, Any]]:
    """Score ``batches`` without gradient: one dict a row, ready for :func:`summarise`.

    ``look`` adds what else is to be known of each row; it is shown the divergence too, so the reference must then keep
    its hidden states.
    """
    import torch

    from grainline.forward import voices

    found: list[dict[str, Any]] = []
    with torch.no_grad():
        for batch in batches:
            batch = batch.to(device)
            needs = objective.needs | ({"kl"} if look and reference else frozenset())
            policy, against = voices(score, reference, batch, needs)
            policy, against = policy.whole(), against and against.whole()
            losses = objective(policy, against if "reference" in objective.needs else None, batch.facts, {})
            rows = _pairs(policy, losses, batch) if hasattr(batch.facts, "margin") else _labelled(policy, losses, batch)
            for row, more in zip(rows, look(batch, policy, against) if look else [{}] * len(rows), strict=True):
                found.append(row | more)
    return found


def summarise(rows: Sequence[dict[str, Any]], groups: dict[str, Any], *, seed: int = 0) -> dict[str, float]:
    """Means of the rows' numbers, and bootstrap intervals over ``groups`` (row id -> prompt)."""
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, float)):
        there = [row for row in rows if name in row]
        values = [row[name] for row in there]
        metrics[name] = sum(values) / len(values)
        if name.endswith(("accuracies", "margins")):
            bounds = mean_interval(values, [groups[row["id"]] for row in there], seed=seed)
            metrics[f"{name}_low"], metrics[f"{name}_high"] = bounds
    return metrics | {"rows": float(len(rows))}


def _pairs(policy: LogProbs, losses: Losses, batch: Batch) -> list[dict[str, Any]]:
    chosen, rejected = policy.token.sum(-1).chunk(2)
    per_token = policy.token.sum(-1) / policy.mask.sum(-1)
    chosen_mean, rejected_mean = per_token.chunk(2)
    columns = {
        "likelihood/accuracies": wins(chosen_mean - rejected_mean),
        "logps/chosen": chosen,
        "logps/rejected": rejected,
        "logps/chosen_per_token": chosen_mean,
    }
    if losses.margin is not None:
        columns = {"rewards/accuracies": wins(losses.margin), "rewards/margins": losses.margin} | columns
        columns |= {name: value for name, value in losses.log.items() if value.shape == losses.margin.shape}
    found = _rows(batch.facts.ids, columns)
    if losses.margin is not None:
        for aspect, better in batch.facts.by_aspect():  # type: ignore[union-attr]
            margin = better * losses.margin
            for row, differs, size, win in zip(
                found, *(x.tolist() for x in (better, margin, wins(margin))), strict=True
            ):
                if differs:
                    row |= {f"rewards/{aspect}/accuracies": win, f"rewards/{aspect}/margins": size}
    return found


def _labelled(policy: LogProbs, losses: Losses, batch: Batch) -> list[dict[str, Any]]:
    answer = policy.token.sum(-1)
    found = _rows(batch.facts.ids, {"logps/answer": answer, "logps/answer_per_token": answer / policy.mask.sum(-1)})
    if (reward := losses.log.get("rewards/answer")) is not None:
        labels = batch.facts.label.tolist()  # type: ignore[union-attr]
        for row, label, value in zip(found, labels, reward.tolist(), strict=True):
            row["rewards/desirable" if label else "rewards/undesirable"] = value
    return found


def _rows(ids: Sequence[str], columns: dict[str, Tensor]) -> list[dict[str, Any]]:
    lists = {name: value.tolist() for name, value in columns.items()}
    return [{"id": row, **{name: value[i] for name, value in lists.items()}} for i, row in enumerate(ids)]
