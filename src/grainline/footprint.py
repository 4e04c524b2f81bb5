"""What one forward costs, found out on a model without weights: FLOPs, and the bytes that autograd keeps for backward.

The real :class:`~grainline.forward.Scorer` reads a real batch on torch's meta device, where every operation knows its
shapes and none computes. FLOPs are counted operation by operation (a multiply-add is two), so what a frozen weight
spares is spared; kept tensors are counted once a storage, without the weights. Attention is a stand-in that keeps and
costs what the device's own does, since a meta tensor would be read by the plain one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import AttentionInterface

from grainline.forward import Scorer
from grainline.forward.head import LOGITS_AT_ONCE
from grainline.types import Batch, LogProbs, Tagged

ATTENTION = "grainline_footprint"
_BACKWARD = 2.5
"""Backward of fused attention over its forward: five products of its size instead of two."""


class Size(NamedTuple):
    """What decides the cost of a forward."""

    tokens: int  # through the model, padding included
    squares: int  # positions that attention compares: the sum of squared lengths of trees or padded rows
    alone: int  # tokens, were each answer read with a prompt of its own


class Cost(NamedTuple):
    """FLOPs of a forward of given size, and what it keeps."""

    forward: float  # a token, without attention
    train: float  # a token, forward and backward, without attention
    attention: float  # forward, for each of Size.squares
    kept: int  # bytes that autograd keeps for the batch that was looked at

    def flops(self, size: Size, *, train: bool) -> float:
        """Of one forward, or of one forward with its backward."""
        token, factor = (self.train, 1 + _BACKWARD) if train else (self.forward, 1.0)
        return token * size.tokens + factor * self.attention * size.squares


def size(batch: Batch) -> Size:
    """What decides the cost of ``batch``."""
    if not batch.trees:
        rows, longest = batch.ids.shape
        return Size(rows * longest, rows * longest**2, rows * longest)
    alone = sum(tree.prompt + branch for tree in batch.trees for branch in tree.branches)
    return Size(batch.ids.numel(), sum((tree.stop - tree.start) ** 2 for tree in batch.trees), alone)


def add(sizes: Sequence[Size], times: float = 1.0) -> Size:
    """All of them together, so many times."""
    return Size(*(round(times * sum(part)) for part in zip(*sizes, strict=True))) if sizes else Size(0, 0, 0)


def cost(
    model: Any,
    batch: Batch,
    *,
    fuse: bool = True,
    on_cpu: bool = True,
    beside: torch.nn.Module | None = None,
    states: int = 1,
) -> Cost:
    """What the forward and backward of ``batch`` cost a ``model`` on the meta device; ``fuse`` as in the recipe.

    Args:
        on_cpu: packed rows will attend by plain products there, which keep less.
        beside: an objective's own modules, which look at so many ``states`` of the reference for each answer token.
    """
    scorer = Scorer(model, packed=bool(batch.trees))
    scorer.heads = beside
    if fuse:
        scorer.fuse()
    scorer.causal.set_attn_implementation(ATTENTION)
    batch, measured = batch.to("meta"), size(batch)
    against = None if beside is None else _reference(scorer.causal, batch, states)
    counts = []
    for train in (False, True):
        scorer.train(train)
        by_products = on_cpu and bool(batch.trees)
        with _Attention.counting(measured.squares, by_products) as attention, _Counter() as counter:
            with torch.set_grad_enabled(train), kept_for_backward(scorer) as held, _all_in_masks(beside is not None):
                token = scorer(batch, against).token
            if train:
                token.sum().backward()
        counts.append((counter.flops / measured.tokens, attention.flops / measured.squares))
    for parameter in scorer.parameters():
        parameter.grad = None
    (forward, attended), (trained, _) = counts
    return Cost(forward, trained, attended, sum(held.values()))


def _reference(causal: Any, batch: Batch, states: int) -> LogProbs:
    """The shapes of what a reference says of ``batch``, with its hidden states."""
    token = torch.empty(batch.rows.shape, device="meta")
    hidden = token.new_empty(*token.shape, states, causal.config.get_text_config().hidden_size, dtype=causal.dtype)
    return batch.logprobs(token)._replace(hidden=hidden)


@contextmanager
def _all_in_masks(when: bool) -> Iterator[None]:
    """Without values nobody knows how many tokens a mask chooses: all it could."""
    from torch.fx.experimental import _config

    config: Any = _config
    with config.patch(meta_nonzero_assume_all_nonzero=True) if when else contextlib.nullcontext():
        yield


def logits(model: Any, answer_tokens: int) -> int:
    """Bytes that scoring one chunk of the vocabulary takes: logits and probabilities, in float32."""
    return 2 * 4 * min(LOGITS_AT_ONCE, answer_tokens * model.config.get_text_config().vocab_size)


def optimizer_state(optimizer: Any, parameters: Sequence[Tagged]) -> int:
    """Bytes that ``optimizer`` keeps beside its parameters (on the meta device) once it has made a step."""
    for _, tensor, _ in parameters:
        tensor.grad = torch.empty_like(tensor)
    getattr(optimizer, "train", lambda: None)()  # what averages must be told that it trains
    with _Ones():
        optimizer.step()
    optimizer.zero_grad()
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.numel() * value.element_size() for value in kept if isinstance(value, Tensor))


_OUT_OF_PLACE = {torch.ops.aten.addmm_: torch.ops.aten.addmm, torch.ops.aten.baddbmm_: torch.ops.aten.baddbmm}
"""Products that torch counts under another name."""


class _Counter(TorchDispatchMode):
    """Adds up the FLOPs of matrix products; torch's own counter hooks modules too, which the row-wise head forbids."""

    flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if (count := flop_registry.get(_OUT_OF_PLACE.get(packet, packet))) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


class _Ones(TorchDispatchMode):
    """Answers 1 where an optimizer asks for a number (a norm, say) that the meta device does not know."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1.0
        return func(*args, **(kwargs or {}))


def resident() -> int:
    """Bytes of memory that this process holds now; where the system does not say, the most it has held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return peak()


def peak(device: Any = "cpu") -> int:
    """The most bytes held since :func:`forget_peak`, or ever: of a CUDA device's memory, or else by this process."""
    import resource

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def forget_peak(device: Any = "cpu") -> None:
    """Begin the peak anew, where the system lets us (Linux, CUDA)."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def kept_for_backward(model: Any) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps meanwhile, without the model's own."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    held = []  # a storage that is gone would give its address to the next

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held.append(storage)
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


class _Attention(torch.autograd.Function):
    """Stands in for attention: keeps its inputs and, as fused kernels do and plain products do not (they make all
    again in backward), its output and a number a position and head."""

    flops = 0.0
    squares = 0
    by_products = False

    @classmethod
    @contextmanager
    def counting(cls, squares: int, by_products: bool) -> Iterator[Any]:
        """Add up the FLOPs of forwards over ``squares`` compared positions."""
        cls.flops, cls.squares, cls.by_products = 0.0, squares, by_products
        yield cls

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        width = query.shape[-1] + value.shape[-1]
        _Attention.flops += 2.0 * query.shape[1] * width * _Attention.squares
        batch, heads, tokens, _ = query.shape
        # Laid out as kernels do it: the output projection reads this very storage.
        out = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, *(() if _Attention.by_products else (out, sums)))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **others: Any) -> tuple[Tensor, None]:
    return _Attention.apply(query, key, value).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attend)  # none for masks: without one no layer is handed any
