"""What our own optimizers share: tensors that step together, the projection of AdamP, several rules in one optimizer.

Tensors of one shape step together, by torch's multi-tensor functions, so that hundreds of small adapter tensors cost a
few calls. Letters: ``N`` tensors of one shape, ``R`` rows of each (its first axis), ``C`` entries of a row.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from grainline.errors import ModelError
from grainline.optimizers._parts import Groups
from grainline.types import Tagged

AT_ONCE = {"cpu": 2**17}
"""Entries that step together at most: on a CPU what its cache holds, elsewhere what the projection may copy."""
AT_ONCE_ELSEWHERE = 2**26
HALF = (torch.float16, torch.bfloat16)


class Part(NamedTuple):
    """Tensors of one shape that have made equally many steps. Of a sharded tensor: this process's shard."""

    params: list[Tensor]
    grads: list[Tensor]
    state: list[dict[str, Any]]
    step: int  # which this one is, 1-based
    whole: DTensor | None  # one of the tensors, where they are sharded

    def kept(self, name: str) -> list[Tensor]:
        """The tensors that the optimizer keeps under ``name``."""
        return [_local(state[name]) for state in self.state]

    def over_shards(self, value: Tensor, largest: bool = False) -> Tensor:
        """``value`` summed (or its largest) over the processes that share these tensors."""
        if self.whole is not None:
            for axis, placement in enumerate(self.whole.placements):
                if placement.is_shard():
                    operation = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM
                    dist.all_reduce(value, operation, group=self.whole.device_mesh.get_group(axis))
        return value


Rule = Callable[[Part, dict[str, Any]], None]


def parts(optimizer: Optimizer, group: dict[str, Any], keeps: Sequence[str]) -> Iterator[Part]:
    """The tensors of ``group`` that have a gradient, by shape; their state begins with zeros under ``keeps``.

    Raises:
        ModelError: a gradient is sparse.
    """
    alike: defaultdict[Any, list[Any]] = defaultdict(list)
    for tensor in group["params"]:
        if tensor.grad is None:
            continue
        if tensor.grad.is_sparse:
            raise ModelError("a sparse gradient cannot be used here.", instead="Make the embedding sparse=False.")
        state = optimizer.state[tensor]
        if not state:
            state["step"] = 0
            state.update({name: torch.zeros_like(tensor, memory_format=torch.preserve_format) for name in keeps})
        state["step"] += 1
        sharding = (tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else None
        alike[tensor.shape, tensor.dtype, tensor.device, sharding, state["step"]].append(tensor)
    for tensors in alike.values():
        first = tensors[0]
        entries = AT_ONCE.get(first.device.type, AT_ONCE_ELSEWHERE)
        count = max(1, entries // max(1, first.numel()))
        for start in range(0, len(tensors), count):
            some = tensors[start : start + count]
            state = [optimizer.state[tensor] for tensor in some]
            local = [_local(tensor) for tensor in some], [_local(tensor.grad) for tensor in some]
            yield Part(*local, state, state[0]["step"], first if isinstance(first, DTensor) else None)


def average_(part: Part, name: str, memory: float, *, squares: bool = False) -> list[Tensor]:
    """The running means of the gradients (or of their squares), carried on by this step."""
    means = part.kept(name)
    if squares:
        scale_(means, memory)
        torch._foreach_addcmul_(means, part.grads, part.grads, 1 - memory)
    elif means[0].dtype in HALF:  # as published: two roundings
        scale_(means, memory)
        torch._foreach_add_(means, part.grads, alpha=1 - memory)
    else:
        torch._foreach_lerp_(means, part.grads, 1 - memory)
    return means


def scale_(tensors: list[Tensor], factor: float | Sequence[float]) -> None:
    """Multiply all by a factor, or each by its own."""
    if tensors[0].is_cpu and tensors[0].dtype in HALF:
        # torch's foreach rounds the factor to the tensors' type first, where 0.999 is 1 (2.13, CPU, in place).
        factors = [factor] * len(tensors) if isinstance(factor, float) else factor
        for tensor, each in zip(tensors, factors, strict=True):
            tensor.mul_(each)
    else:
        torch._foreach_mul_(tensors, factor)


# -------------------------------------------------------------------------------------------------- the projection


def project_(moves: list[Tensor], part: Part, *, delta: float, eps: float) -> list[bool]:
    """Take from ``moves`` what points along the weights, where a weight looks scale-invariant; says where.

    A weight looks so if its gradient is nearly at right angles to it: each row's to the row (then each row's move loses
    what is along the row), or else the whole's to the whole. "Nearly" is ``|cos| < delta / sqrt(entries)``. Cosines are
    taken of the raw gradient. Vectors are left alone.

    Args:
        moves: (R, C...) each, changed in place.
        delta: see above; 0 never projects.
        eps: least norm in a cosine, and added to the norm of a weight.

    Raises:
        ModelError: the tensors are sharded along another axis than the first, so that rows are cut.
    """
    if part.params[0].ndim < 2 or part.params[0].is_meta:  # nothing is known of a tensor on the meta device
        return [False] * len(moves)
    if part.whole is not None and any(p.is_shard() and not p.is_shard(0) for p in part.whole.placements):
        raise ModelError("AdamP and SGDP need whole rows; these are cut.", instead="Shard along the first axis.")
    weight_NRC, grad_NRC = _rows(part.params), _rows(part.grads)
    inner_NR, grad_NR, weight_NR = (
        torch.linalg.vecdot(a, b) for a, b in ((grad_NRC, weight_NRC), (grad_NRC, grad_NRC), (weight_NRC, weight_NRC))
    )
    layer = torch.stack([part.over_shards(t) for t in torch.stack([inner_NR, grad_NR, weight_NR]).sum(-1)])
    cos_NR, cos_N = _cosine(inner_NR, grad_NR, weight_NR, eps), _cosine(layer[0], layer[1], layer[2], eps)
    row_N = cos_NR.amax(-1) if cos_NR.shape[1] else torch.zeros_like(cos_N)  # no row of it is here
    entries = part.params[0].shape[1:].numel()
    rows = entries * (part.params[0] if part.whole is None else part.whole).shape[0]
    small = [
        part.over_shards(row_N, largest=True) < delta / math.sqrt(max(1, entries)),
        cos_N < delta / math.sqrt(max(1, rows)),
    ]
    by_rows, by_whole = torch.stack(small).tolist()  # the one place where the device is waited for
    chosen = [i for i, fires in enumerate(by_rows) if fires]
    if chosen:
        _remove_(moves, chosen, weight_NRC, weight_NR.unsqueeze(-1), eps, None)
    chosen = [i for i, (channel, fires) in enumerate(zip(by_rows, by_whole, strict=True)) if fires and not channel]
    if chosen:
        _remove_(moves, chosen, weight_NRC, layer[2][:, None, None], eps, part)
    return [channel or fires for channel, fires in zip(by_rows, by_whole, strict=True)]


def decay_(part: Part, group: dict[str, Any], shares: Sequence[float]) -> None:
    """Shrink each weight by the group's decay, times its share."""
    rate = group["lr"] * group["weight_decay"]
    if rate > 0:
        scale_(part.params, [1 - rate * share for share in shares])


def _remove_(
    moves: list[Tensor], chosen: list[int], weight_NRC: Tensor, square: Tensor, eps: float, whole: Part | None
) -> None:
    """Take the part along the weight from the chosen moves: along each row, or along the ``whole``."""
    some = [moves[i] for i in chosen]
    unit_NRC = weight_NRC[chosen] / (square[chosen].sqrt() + eps)
    along = (unit_NRC * _rows(some)).sum(-1, keepdim=True)
    if whole is not None:
        along = whole.over_shards(along.sum(-2, keepdim=True))
    away_NRC = (unit_NRC * along).to(some[0].dtype)
    torch._foreach_sub_(some, list(away_NRC.view(len(some), *some[0].shape).unbind()))


def _cosine(inner: Tensor, square_a: Tensor, square_b: Tensor, eps: float) -> Tensor:
    return inner.abs() / (square_a.sqrt().clamp_min(eps) * square_b.sqrt().clamp_min(eps))


def _rows(tensors: Sequence[Tensor]) -> Tensor:
    """(N, R, C), in float32 at least: cosines of half-precision sums would be noise."""
    stacked = torch.stack(tuple(tensors))
    wide = stacked.float() if stacked.dtype in HALF else stacked
    return wide.reshape(len(tensors), tensors[0].shape[0], tensors[0].shape[1:].numel())


def refuse_sharded(parameters: Sequence[Tagged], why: str, instead: str) -> None:
    """For a rule that needs whole tensors.

    Raises:
        ModelError: one of ``parameters`` is sharded.
    """
    for tagged in parameters:
        if isinstance(tagged.tensor, DTensor):
            raise ModelError(f"is sharded: {why}.", where=tagged.name, instead=instead)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


# ------------------------------------------------------------------------------------------------------ optimizers


class ByParts(Optimizer):
    """A torch optimizer whose step is ``rule(part, group)`` for all tensors of a shape together.

    Args:
        groups: torch parameter groups.
        options: what each group has besides, e.g. {"betas": (0.9, 0.999)}.
        keeps: names of the tensors that are kept for each parameter, zeros at first.
        rule: changes the part's parameters and kept tensors in place.
    """

    def __init__(self, groups: Groups, options: dict[str, Any], *, keeps: Sequence[str], rule: Rule) -> None:
        super().__init__(groups, options)
        self.keeps, self.rule = tuple(keeps), rule

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = _reevaluated(closure)
        for group in self.param_groups:
            for part in parts(self, group, self.keeps):
                self.rule(part, group)
        return loss


class Combined(Optimizer):
    """Several optimizers as one: their groups one after the other, their state in one place."""

    def __init__(self, members: Sequence[Optimizer]) -> None:
        self.members = tuple(members)
        super().__init__([group for member in members for group in member.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # what load_state_dict ends with: groups and state are new objects
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = _reevaluated(closure)
        for member in self.members:
            member.step()
        return loss

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for member in self.members:
            member.param_groups = list(islice(groups, len(member.param_groups)))
            member.state = self.state


def _reevaluated(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
