"""Frozen weights shared out over processes: each holds a part of every layer, and fetches the rest while it reads it.

torch's FSDP2 (``fully_shard``), layer by layer. What trains stays whole in every process: an adapter is small, and so
optimizers, checkpoints and exports know nothing of shards; its gradients are averaged once a step. Embeddings, final
norm and head stay whole too: they are whole while a batch is read in any case, and the head is read chunk by chunk.

accelerate wraps the same function, but only on GPUs, only for a whole model that is trained, and only when the loop
begins; here the reference is read before.

A process reads only together with all others, since each of its layers fetches from them. Where processes have
different numbers of forwards, or one alone has something to ask, they are kept :func:`in_step`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from grainline import models
from grainline.errors import ModelError, RecipeError

if TYPE_CHECKING:
    from grainline.recipe import Recipe

_DONE, _READS, _LEARNS = range(3)
"""What a process is about to do: nothing more, a forward, a forward with its backward."""


def check_sharing(recipe: Recipe, reference: str, processes: int) -> None:
    """Refuse what cannot be done where a process holds a part of the weights.

    Raises:
        RecipeError: the recipe asks for it, or there is nobody to share with.
    """
    if processes == 1:
        raise RecipeError(
            "one process has nobody to share weights with.",
            where="shard",
            instead="Start several, torchrun --nproc_per_node 2 -m grainline align ..., or plan with --processes 2.",
        )
    cannot = [
        ("adapter", not recipe.adapter.roles, "all weights would train, and only frozen ones are shared out", "lora"),
        ("adapter", recipe.adapter.changes_base, "its start would change weights that are shared out", "another"),
        ("model.load_in_4bit", recipe.model.load_in_4bit, "weights in 4 bits are no tensors of numbers", "false"),
        ("reference", reference == "snapshot", "a snapshot would be a second model, held whole", "cache or off"),
        ("max_tokens", recipe.max_tokens == "auto", "auto would try forwards of one process alone", "a number"),
        ("evaluation.geometry", recipe.evaluation.geometry, "geometry would look at whole matrices", "false"),
    ]
    for where, asked, why, other in cannot:
        if asked:
            raise RecipeError(f"with shard=true, {why}.", where=where, instead=f"Set it to {other}, or shard to false.")


def shard(scorer: Any, device: torch.device) -> None:
    """Leave of every frozen layer under ``scorer`` only this process's part; put that and all else on ``device``.

    Raises:
        ModelError: the model does not say which of its modules are layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    body, layers = _body(scorer.causal), layers_of(scorer.causal)
    kind = type(body)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    frozen = {tensor for _, tensor in models.base_parameters(scorer.model) if not tensor.requires_grad}
    whole = {tensor for tensor in scorer.parameters() if tensor not in frozen}
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    shared = {tensor for layer in layers for tensor in layer.parameters()}
    fully_shard(body, mesh=mesh, ignored_params={t for t in body.parameters() if t not in shared} | whole)
    body.__class__ = kind  # transformers looks up by it which hidden states a model can give
    scorer.to(device)
    same(p for p in scorer.parameters() if p.requires_grad)


def layers_of(causal: Any) -> list[nn.Module]:
    """The layers of a model that are shared out.

    Raises:
        ModelError: the model does not say which of its modules are layers.
    """
    names = set(causal._no_split_modules or ())
    layers = [module for module in _body(causal).modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError("it names no layers that could be shared out.", where=type(causal).__name__)
    return layers


def part(tensor: Tensor, processes: int) -> int:
    """Bytes of ``tensor`` that the first of ``processes`` holds: torch cuts along the first axis, and rounds up."""
    rows, *rest = tensor.shape
    return -(-rows // processes) * math.prod(rest) * tensor.element_size()


def is_sharded(scorer: nn.Module) -> bool:
    """Does this process hold parts of the weights only?"""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in scorer.parameters())


@contextmanager
def in_step(scorer: Any) -> Iterator[None]:
    """Within, each process reads as often as it likes: one that is done reads along until all are.

    Every forward with a gradient must have its backward before the next one, and processes may exchange nothing else.
    Where weights are whole this does nothing.
    """
    if not is_sharded(scorer):
        yield
        return
    device = next(scorer.parameters()).device

    def said(what: int) -> int:
        """The most that any process is about to do."""
        most = torch.tensor(what, device=device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def call(*_: Any) -> None:
        said(_LEARNS if torch.is_grad_enabled() else _READS)

    calling = _body(scorer.causal).register_forward_pre_hook(call, prepend=True)
    try:
        yield
    finally:
        calling.remove()
    while (what := said(_DONE)) != _DONE:
        with torch.set_grad_enabled(what == _LEARNS), scorer.plain():  # layers may run again in backward
            logits = scorer.glance()
            if what == _LEARNS:
                logits.backward(torch.zeros_like(logits))


def same(tensors: Iterable[Tensor]) -> None:
    """Make ``tensors`` those of the first process in all of them."""
    with torch.no_grad():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def average(parameters: Sequence[nn.Parameter]) -> None:
    """Make every gradient its mean over all processes; one that no process has stays away."""
    reached = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=parameters[0].device)
    dist.all_reduce(reached, dist.ReduceOp.MAX)
    those = [p for p, somewhere in zip(parameters, reached.tolist(), strict=True) if somewhere]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in those])
    dist.all_reduce(flat)
    means = (flat / dist.get_world_size()).split([p.numel() for p in those])
    for parameter, mean in zip(those, means, strict=True):
        parameter.grad = mean.view_as(parameter).to(parameter)


def _body(causal: Any) -> nn.Module:
    """What every forward runs through, once."""
    return getattr(causal, causal.base_model_prefix)
