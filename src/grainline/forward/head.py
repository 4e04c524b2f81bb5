"""Hidden states of the answer positions -> log-probabilities of their tokens, chunk by chunk.

The logits of a chunk exist only while it is worked on; nothing of size (tokens x vocabulary) is kept for backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**23
"""Elements of the largest logits chunk: 32 MiB in float32. Twice as many take 1 % off a step of SmolLM2's and add 7 %
to its peak."""


def answer_logprobs(causal: Any, hidden_MH: Tensor, target_M: Tensor) -> Tensor:
    """(M, H) hidden states -> (M,) log-probabilities of their targets: float32 (or wider), in nats."""
    (token_M,) = _in_chunks(_target_logprob, causal, hidden_MH, target_M)
    return token_M


def answer_logprobs_and_concentration(causal: Any, hidden_MH: Tensor, target_M: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and (M,) log sum_v p(v)^2 of the distributions they are taken from, without gradient, in nats.

    It is the log of the probability that two draws agree: 0 where one token is certain, -log V where all are alike.
    """
    token_M, concentration_M = _in_chunks(_target_logprob_and_concentration, causal, hidden_MH, target_M)
    return token_M, concentration_M


def _in_chunks(score: Callable, causal: Any, hidden_MH: Tensor, target_M: Tensor) -> tuple[Tensor, ...]:
    """What ``score`` makes of each position's logits; only the first of its answers has a gradient."""
    head = causal.get_output_embeddings()
    score = functools.partial(score, head, functools.partial(_finish, causal.config))
    chunk = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
    frozen = _is_plain_frozen(head)
    if not torch.is_grad_enabled() or (frozen and not hidden_MH.requires_grad):
        return _joined(score(h, t) for h, t in _chunks(hidden_MH, target_M, chunk))
    if frozen:
        return _RowwiseHead.apply(hidden_MH, target_M, score, chunk)
    return _joined(checkpoint(score, h, t, use_reentrant=False) for h, t in _chunks(hidden_MH, target_M, chunk))


class _RowwiseHead(torch.autograd.Function):
    """A frozen head: y_m depends on h_m alone, so its whole Jacobian is one row dy_m/dh_m a token.

    The row is taken while the chunk's logits exist; nothing of vocabulary size is kept, and backward is a product.
    """

    @staticmethod
    def forward(ctx: Any, hidden_MH: Tensor, target_M: Tensor, score: Callable, chunk: int) -> tuple[Tensor, ...]:
        values, jacobian = [], []
        for hidden, target in _chunks(hidden_MH, target_M, chunk):
            with torch.enable_grad():
                leaf = hidden.detach().requires_grad_()
                value, *others = score(leaf, target)
            values.append((value.detach(), *others))
            jacobian.append(torch.autograd.grad(value, leaf, torch.ones_like(value))[0])
        ctx.save_for_backward(torch.cat(jacobian))
        found = _joined(values)
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor, *others: Tensor) -> tuple[Tensor, None, None, None]:
        (jacobian_MH,) = ctx.saved_tensors
        return (grad_M[:, None] * jacobian_MH).to(jacobian_MH.dtype), None, None, None


def _logits(head: nn.Module, finish: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    logits = head(hidden)
    return finish(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def _target_logprob(
    head: nn.Module, finish: Callable[[Tensor], Tensor], hidden: Tensor, target: Tensor
) -> tuple[Tensor]:
    return (_Chosen.apply(_logits(head, finish, hidden), target)[0],)


def _target_logprob_and_concentration(
    head: nn.Module, finish: Callable[[Tensor], Tensor], hidden: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    return _Chosen.apply(_logits(head, finish, hidden), target, True)


class _Chosen(torch.autograd.Function):
    """log p(target) of (n, V) logits z, whose gradient is onehot - p: made of p, in its place.

    log sum_v exp z(v) is read off the likeliest token, as max z - log max p: at least 1 / V is far from underflow.
    So is the root of sum_v p(v)^2, whose logarithm is taken too where it is ``asked``.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, asked: bool = False) -> tuple[Tensor, Tensor | None]:
        p, target = logits.softmax(-1), target[:, None]
        token = logits.gather(-1, target) - (logits.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log())
        concentration = 2 * torch.linalg.vector_norm(p, dim=-1).log() if asked else None
        ctx.save_for_backward(p, target)
        if concentration is not None:
            ctx.mark_non_differentiable(concentration)
        return token[:, 0], concentration

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        p, target = ctx.saved_tensors
        grad = grad[:, None]
        return p.mul_(-grad).scatter_add_(-1, target, grad), None, None


def _finish(config: Any, logits: Tensor) -> Tensor:
    """What some architectures do to logits after the head: scale (Cohere, Granite), then soft-cap (Gemma)."""
    config = config.get_text_config()
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    if scale != 1.0:  # a pass over the logits is worth sparing
        logits = logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def _is_plain_frozen(head: nn.Module) -> bool:
    """May the head be differentiated row by row? Only if nothing inside it trains and its weight is a whole tensor."""
    from torch.distributed.tensor import DTensor

    parameters = list(head.parameters())
    return not any(p.requires_grad or isinstance(p, DTensor) for p in parameters)


def _joined(pieces: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(map(torch.cat, zip(*pieces, strict=True)))


def _chunks(hidden: Tensor, target: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(hidden.split(chunk), target.split(chunk), strict=True)
