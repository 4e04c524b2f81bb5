"""Log-probs of the answer tokens together with KL(reference || policy) where each is predicted, over the whole
vocabulary, exactly.

.. math:: KL_m = \\sum_v q_m(v)\\,[\\log q_m(v) - \\log p_m(v)]

The reference's distribution q comes from its final hidden states, so nothing of vocabulary size is stored for it, on
disk or in memory. Both distributions exist for one chunk of positions at a time, and the policy's logits are computed
once for token and divergence. The gradient goes to the policy p alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from grainline.forward import head

Logits = Callable[[Tensor], Tensor]
"""(n, H) hidden states -> (n, V) logits, float32 or wider."""

TENSORS_AT_ONCE = 4
"""Tensors of a chunk's size that live together here, where the plain head has two: chunks are smaller by as much."""


def logits_of(module: nn.Module, config: Any) -> Logits:
    """``module`` as a function of hidden states, with all that the architecture does to its logits."""

    def logits(hidden: Tensor) -> Tensor:
        found = module(hidden)
        return head._finish(config, found.to(torch.promote_types(found.dtype, torch.float32)))

    return logits


def answer_logprobs_and_kl(
    causal: Any, hidden_MH: Tensor, target_M: Tensor, against_MH: Tensor, against: nn.Module | None = None
) -> tuple[Tensor, Tensor]:
    """(M,) log-probabilities of the targets, and (M,) KL(reference || policy) at their positions, in nats.

    Args:
        against_MH: the reference's final hidden states at the same positions.
        against: the reference's head, where the policy's own is no longer it.
    """
    own = causal.get_output_embeddings()
    policy, reference = logits_of(own, causal.config), logits_of(against or own, causal.config)
    rows = max(1, 2 * head.LOGITS_AT_ONCE // (own.weight.shape[0] * TENSORS_AT_ONCE))
    pieces = list(zip(*(x.split(rows) for x in (hidden_MH, target_M, against_MH)), strict=True))
    frozen = head._is_plain_frozen(own)
    if torch.is_grad_enabled() and hidden_MH.requires_grad and frozen:
        return _Rowwise.apply(hidden_MH, target_M, against_MH, policy, reference, rows)
    score = functools.partial(_token_and_kl, policy, reference)
    if torch.is_grad_enabled() and not (frozen and not hidden_MH.requires_grad):
        found = [checkpoint(score, *piece, use_reentrant=False) for piece in pieces]
    else:
        found = [score(*piece) for piece in pieces]
    token, kl = zip(*found, strict=True)
    return torch.cat(token), torch.cat(kl)


def _token_and_kl(
    policy: Logits, reference: Logits, hidden: Tensor, target: Tensor, against: Tensor
) -> tuple[Tensor, Tensor]:
    logp = policy(hidden).log_softmax(-1)
    with torch.no_grad():
        logq = reference(against).log_softmax(-1)
    kl = (logq.exp() * (logq - logp)).sum(-1)
    return logp.gather(-1, target[:, None])[:, 0], kl


class _Rowwise(torch.autograd.Function):
    """A frozen head: token and divergence at a position depend on its own hidden state alone, so each Jacobian is one
    row. By the logits z these are onehot - p for the token and p - q for the divergence."""

    @staticmethod
    def forward(
        ctx: Any, hidden_MH: Tensor, target_M: Tensor, against_MH: Tensor, policy: Logits, reference: Logits, rows: int
    ) -> tuple[Tensor, Tensor]:
        found = [
            _with_rows(policy, reference, *piece)
            for piece in zip(*(x.split(rows) for x in (hidden_MH, target_M, against_MH)), strict=True)
        ]
        token, kl, by_token, by_kl = map(torch.cat, zip(*found, strict=True))
        ctx.save_for_backward(by_token, by_kl)
        return token, kl

    @staticmethod
    def backward(ctx: Any, token_M: Tensor, kl_M: Tensor) -> tuple[Tensor | None, ...]:
        by_token, by_kl = ctx.saved_tensors
        slope = token_M[:, None] * by_token + kl_M[:, None] * by_kl
        return slope.to(by_token.dtype), None, None, None, None, None


def _with_rows(
    policy: Logits, reference: Logits, hidden: Tensor, target: Tensor, against: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token log-probs, divergences, and how each changes with the hidden state it depends on."""
    target = target[:, None]
    with torch.enable_grad():
        leaf = hidden.detach().requires_grad_()
        logits = policy(leaf)
    logp = logits.detach().log_softmax(-1)
    token = logp.gather(-1, target)[:, 0]
    logq = reference(against).log_softmax(-1)
    q = logq.exp()
    kl = (q[:, None] @ logq.sub_(logp)[..., None])[:, 0, 0]
    p = logp.exp_()
    slope = torch.sub(p, q, out=q)
    (by_kl,) = torch.autograd.grad(logits, leaf, slope, retain_graph=True)
    slope = p.neg_()
    slope.scatter_add_(-1, target, torch.ones_like(token)[:, None])
    (by_token,) = torch.autograd.grad(logits, leaf, slope)
    return token, kl, by_token, by_kl
