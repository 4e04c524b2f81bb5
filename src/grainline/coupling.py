"""The losses of a step, forward by forward: of rows that stand alone, and of rows that depend on each other.

Most objectives judge a row by itself. Some look at all rows of the step together: at a mean of their rewards, or at
their order. For these every log-prob of the step is taken first, without gradient, over all forwards and processes; the
loss and its derivative by each token are taken there; then each forward is read again, and its tokens are pulled by
their share of that derivative. So the result is the same however a step is split into forwards and processes. It costs
one more forward without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from grainline import sharding
from grainline.forward import voices
from grainline.reduction import numbers, share, totals
from grainline.types import Batch, LogProbs, Losses, Pairs, Rows

Judged = tuple[Losses, Tensor]
"""Losses of one forward's rows, and its share of the step's loss, with the gradient that it must have."""


def judge(
    objective: Any,
    scorer: Any,
    reference: Callable[[Batch], LogProbs] | None,
    forwards: Sequence[Batch],
    accelerator: Accelerator,
    state: Mapping[str, float],
) -> Separate | Coupled:
    """How the forwards of one step are judged. ``state`` holds the numbers the objective carries from step to step."""
    if not getattr(objective, "coupled", False):
        names = getattr(getattr(accelerator.unwrap_model(scorer), "heads", None), "names", ())
        return Separate(objective, forwards, accelerator, state, names)
    return Coupled(objective, accelerator.unwrap_model(scorer), reference, forwards, accelerator, state)


def alone(device: torch.device) -> Any:
    """In place of the accelerator: a process that reads the rows by itself waits for no other."""
    return SimpleNamespace(num_processes=1, process_index=0, device=device, unwrap_model=lambda model: model)


class Separate:
    """Rows that stand alone: nothing but the counts is known of the others."""

    def __init__(
        self,
        objective: Any,
        forwards: Sequence[Batch],
        accelerator: Accelerator,
        state: Mapping[str, float],
        names: Sequence[str] = (),
    ) -> None:
        self.objective, self.state = objective, dict(state)
        self._given = numbers(state)
        self._totals = totals(objective, forwards, accelerator, self._given, names)

    def __call__(self, i: int, batch: Batch, policy: LogProbs, against: LogProbs | None) -> Judged:
        """Losses of forward ``i`` and its share of the step's loss."""
        losses = self.objective(policy, against, batch.facts, {**(policy.heads or {}), **self._given})
        self.state |= {name: float(value) for name, value in losses.state.items()}
        return losses, share(losses, batch.facts.weight, self._totals)


class _Look(NamedTuple):
    """One forward, as it was read without gradient."""

    policy: LogProbs
    against: LogProbs | None
    facts: Pairs | Rows


class Coupled:
    """Rows that depend on each other: judged together, over all forwards and processes."""

    def __init__(
        self,
        objective: Any,
        scorer: Any,
        reference: Callable[[Batch], LogProbs] | None,
        forwards: Sequence[Batch],
        accelerator: Accelerator,
        state: Mapping[str, float],
    ) -> None:
        mine = _looks(objective, scorer, reference, forwards, accelerator)
        parted = gather_object([mine]) if accelerator.num_processes > 1 else [mine]
        looks = [look for part in parted for look in part]
        self._first = sum(len(part) for part in parted[: accelerator.process_index])
        self._looks = looks
        policy, against, facts = together(looks)
        said = {"token": policy.token, "kl": policy.kl, **(policy.heads or {})}
        leaves = {name: value.requires_grad_() for name, value in said.items() if value is not None}
        heads = {name: leaves[name] for name in policy.heads or {}}
        policy = policy._replace(token=leaves["token"], kl=leaves.get("kl"), heads=None)
        losses = objective(policy, against, facts, {**heads, **numbers(state)})
        counts = {
            name: (facts.weight * term.count).sum().double().clamp(min=1e-30) for name, term in losses.terms.items()
        }
        loss = share(losses, facts.weight, counts)
        pulls = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        self._pulls = {name: pull for name, pull in zip(leaves, pulls, strict=True) if pull is not None}
        self._losses, self._counts = _detached(losses), counts
        self.state = dict(state) | {name: float(value) for name, value in losses.state.items()}

    def __call__(self, i: int, batch: Batch, policy: LogProbs, against: LogProbs | None) -> Judged:
        """Losses of forward ``i``; its share has their value, and the gradient of the step's loss."""
        here = self._first + i
        before = sum(len(look.facts.ids) for look in self._looks[:here])
        rows = slice(before, before + len(batch.facts.ids))
        losses = _moved(_of_rows(self._losses, rows), batch.rows.device)
        value = share(losses, batch.facts.weight, {name: n.to(batch.rows.device) for name, n in self._counts.items()})
        said = {"token": policy.token, "kl": policy.kl, **(policy.heads or {})}
        pulled = torch.stack(
            [(said[name] * self._mine(pull, here).to(said[name])).sum() for name, pull in self._pulls.items()]  # type: ignore[operator]
        ).sum()
        return losses, value.to(pulled) + (pulled - pulled.detach())

    def _mine(self, pull_BT: Tensor, here: int) -> Tensor:
        """The rows of ``pull_BT`` that belong to forward ``here``, as wide as they are there."""
        sizes = [len(look.facts.ids) for look in self._looks]
        rows, width = self._looks[here].policy.token.shape
        parts = pull_BT.chunk(rows // sizes[here])
        return torch.cat([part.split(sizes)[here] for part in parts])[:, :width]


def _looks(
    objective: Any,
    scorer: Any,
    reference: Callable[[Batch], LogProbs] | None,
    forwards: Sequence[Batch],
    accelerator: Accelerator,
) -> list[_Look]:
    """Every forward of this process, without gradient; dropout draws the same again when it is read with gradient."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    looks = []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), sharding.in_step(scorer):
        for batch in forwards:  # as they are collated, on the CPU, so are their facts
            policy, against = voices(scorer, reference, batch.to(accelerator.device), objective.needs)
            looks.append(_Look(_light(policy), against and _light(against), batch.facts))
    return looks


def _light(said: LogProbs) -> LogProbs:
    """What an objective reads, on the CPU: hidden states stay where they are."""
    heads = said.heads and {name: value.cpu() for name, value in said.heads.items()}
    tensors: dict[str, Any] = {name: v.cpu() for name, v in said._asdict().items() if isinstance(v, Tensor)}
    return said._replace(**tensors | {"hidden": None}, heads=heads)


def together(looks: Sequence[_Look]) -> tuple[LogProbs, LogProbs | None, Pairs | Rows]:
    """Several forwards as one: rows stay in their halves (chosen, rejected), answers are padded to the longest."""
    policy = _joined([look.policy for look in looks], looks)
    against = None if looks[0].against is None else _joined([look.against for look in looks], looks)  # type: ignore[misc]
    facts = [look.facts for look in looks]
    ids = tuple(row for one in facts for row in one.ids)
    weight, said = torch.cat([one[1] for one in facts]), torch.cat([one[2] for one in facts])
    pairs = [one for one in facts if isinstance(one, Pairs)]
    if not pairs:
        return policy, against, Rows(ids, weight, said)
    columns = tuple(sorted({column for one in pairs for column in one.columns}))
    numbers = [torch.cat([one.number(column) for one in pairs]) for column in columns]
    held = torch.stack(numbers, -1) if numbers else None
    return policy, against, Pairs(ids, weight, said, columns=columns, numbers=held)


_OUTSIDE = {"segment": -1, "score": float("nan")}


def _joined(said: Sequence[LogProbs], looks: Sequence[_Look]) -> LogProbs:
    def join(values: Sequence[Tensor], outside: float) -> Tensor:
        longest = max(value.shape[1] for value in values)
        halves: list[list[Tensor]] = []
        for value, look in zip(values, looks, strict=True):
            wide = value.new_full((len(value), longest, *value.shape[2:]), outside)
            wide[:, : value.shape[1]] = value
            halves.append(list(wide.split(len(look.facts.ids))))
        return torch.cat([part for parts in zip(*halves, strict=True) for part in parts])

    first = said[0]
    tensors = {
        name: join([getattr(one, name) for one in said], _OUTSIDE.get(name, 0))
        for name, value in first._asdict().items()
        if isinstance(value, Tensor)
    }
    heads = first.heads and {name: join([one.heads[name] for one in said], 0) for name in first.heads}  # type: ignore[index]
    return first._replace(**tensors, heads=heads)


def _detached(losses: Losses) -> Losses:
    terms = {name: term._replace(value=term.value.detach()) for name, term in losses.terms.items()}
    return losses._replace(terms=terms)


def _of_rows(losses: Losses, rows: slice) -> Losses:
    terms = {name: term._replace(value=term.value[rows], count=term.count[rows]) for name, term in losses.terms.items()}
    margin = None if losses.margin is None else losses.margin[rows]
    return Losses(terms, margin, {name: value[rows] for name, value in losses.log.items()}, losses.state)


def _moved(losses: Losses, device: torch.device) -> Losses:
    terms = {
        name: term._replace(value=term.value.to(device), count=term.count.to(device))
        for name, term in losses.terms.items()
    }
    return losses._replace(terms=terms)
