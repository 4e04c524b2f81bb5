"""The model's one question: how likely is each answer token? Asked of packed question trees, exactly.

Three things make it cheap without changing a number: a prompt is read once for all of its answers (tree attention, see
``data/collate.py``), nothing is padded, and the (tokens x vocabulary) logits never exist whole: the language-model head
is applied in chunks and only at positions that predict an answer token.

The :class:`Scorer` is the module that is prepared, wrapped and called, for the policy and for the reference alike;
reaching around it for the body or the head's weight would miss what DDP and FSDP do on a call. It knows nothing of
objectives. :func:`choose_layout` compares it with the plain model on the user's own model before the first step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from grainline.errors import ModelError
from grainline.types import Batch, Layout, LogProbs, Tree

ATTENTION = "grainline_tree"
"""Name under which :func:`tree_attention` is registered with transformers."""

LOGITS_AT_ONCE = 2**24
"""Elements of the largest logits chunk: 64 MiB in float32."""


class Scorer(nn.Module):
    """Token log-probabilities of a batch's answers under a causal language model.

    Args:
        model: a transformers causal LM, or a PeftModel around one.
        packed: whether batches are packed rows (trees) or padded ones.
    """

    def __init__(self, model: nn.Module, *, packed: bool = True) -> None:
        super().__init__()
        self.model = model
        causal = self.causal
        if causal.config._attn_implementation != ATTENTION:  # else an earlier scorer of this model has kept it
            causal.plain_attention = causal.config._attn_implementation
        self.use(packed=packed)

    @property
    def causal(self) -> Any:
        """The causal LM itself, without PEFT's wrapping."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def use(self, *, packed: bool) -> None:
        """Read packed rows with tree attention, or padded rows with the model's own."""
        self.packed = packed
        self.causal.set_attn_implementation(ATTENTION if packed else self.causal.plain_attention)

    @contextmanager
    def plain(self) -> Iterator[Any]:
        """The model with its own attention, for generation and for the outside world."""
        packed = self.packed
        self.use(packed=False)
        try:
            yield self.model
        finally:
            self.use(packed=packed)

    def forward(self, batch: Batch) -> LogProbs:
        """log p(token | prompt, tokens before it) for every answer token, float32 (or wider), in nats.

        Returns:
            LogProbs with (B, T) rows in the order of ``batch.rows``; 0 outside the answers.
        """
        hidden_MH = self._hidden(batch).flatten(0, 1)[batch.source]
        token_M = self._head(hidden_MH, batch.target)
        return batch.logprobs(token_M[batch.rows.clamp(min=0)].masked_fill(batch.rows < 0, 0.0))

    def _hidden(self, batch: Batch) -> Tensor:
        """(rows, positions, H) what the body makes of the batch's tokens."""
        # Padding stands on the right, where no causal answer token can see it: nothing needs to be masked.
        layout = {"trees": _Trees(batch)} if self.packed else {"attention_mask": torch.ones_like(batch.ids)}
        if _learns_a_prompt(self.model):
            # PEFT puts the prompt before the tokens around the whole model; its head is asked for one token, in vain.
            model: Any = self.model
            said = model(input_ids=batch.ids, **layout, output_hidden_states=True, logits_to_keep=1, use_cache=False)
            return said.hidden_states[-1][:, -batch.ids.shape[1] :]
        body = getattr(self.causal, self.causal.base_model_prefix)
        return body(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **layout).last_hidden_state

    def _head(self, hidden_MH: Tensor, target_M: Tensor) -> Tensor:
        """(M, H) hidden states -> (M,) log-probabilities of their targets, in chunks."""
        head = self.causal.get_output_embeddings()
        score = functools.partial(_target_logprob, head, functools.partial(_finish, self.causal.config))
        chunk = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
        frozen = _is_plain_frozen(head)
        if not torch.is_grad_enabled() or (frozen and not hidden_MH.requires_grad):
            return torch.cat([score(h, t) for h, t in _chunks(hidden_MH, target_M, chunk)])
        if frozen:
            return _RowwiseHead.apply(hidden_MH, target_M, score, chunk)
        parts = [checkpoint(score, h, t, use_reentrant=False) for h, t in _chunks(hidden_MH, target_M, chunk)]
        return torch.cat(parts)


def _learns_a_prompt(model: Any) -> bool:
    """Whether the active adapter adds to what the model reads, rather than to its layers."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


# ------------------------------------------------------------------------------------------------------------ head


class _RowwiseHead(torch.autograd.Function):
    """A frozen head: y_m depends on h_m alone, so its whole Jacobian is one row dy_m/dh_m a token.

    The row is taken while the chunk's logits exist; nothing of vocabulary size is kept, and backward is a product.
    """

    @staticmethod
    def forward(ctx: Any, hidden_MH: Tensor, target_M: Tensor, score: Callable, chunk: int) -> Tensor:
        values, jacobian = [], []
        for hidden, target in _chunks(hidden_MH, target_M, chunk):
            with torch.enable_grad():
                leaf = hidden.detach().requires_grad_()
                value = score(leaf, target)
            values.append(value.detach())
            jacobian.append(torch.autograd.grad(value, leaf, torch.ones_like(value))[0])
        ctx.save_for_backward(torch.cat(jacobian))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor, None, None, None]:
        (jacobian_MH,) = ctx.saved_tensors
        return (grad_M[:, None] * jacobian_MH).to(jacobian_MH.dtype), None, None, None


def _target_logprob(head: nn.Module, finish: Callable[[Tensor], Tensor], hidden: Tensor, target: Tensor) -> Tensor:
    logits = head(hidden)
    logits = finish(logits.to(torch.promote_types(logits.dtype, torch.float32)))
    return -F.cross_entropy(logits, target, reduction="none")


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


def _chunks(hidden: Tensor, target: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(hidden.split(chunk), target.split(chunk), strict=True)


# ------------------------------------------------------------------------------------------------- tree attention


class _Trees:
    """The trees of a packed row, with their attention masks made once per window and dtype."""

    def __init__(self, batch: Batch) -> None:
        self.trees, self.positions = batch.trees, batch.positions[0]
        self._masks: dict[tuple[int, int | None, torch.dtype], Tensor] = {}

    def mask(self, i: int, window: int | None, dtype: torch.dtype) -> Tensor:
        if (i, window, dtype) not in self._masks:
            tree = self.trees[i]
            sees = tree_mask(tree, self.positions[tree.start : tree.stop], window)
            self._masks[i, window, dtype] = torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, float("-inf"))
        return self._masks[i, window, dtype]


def tree_mask(tree: Tree, positions: Tensor, window: int | None) -> Tensor:
    """(L, L) bool: token i sees token j if j is in the prompt or in i's own answer, not later, and within the window.

    ``positions`` restart after the prompt for each answer, so distances are those of (prompt, answer) read alone.
    """
    branch = torch.repeat_interleave(
        torch.arange(len(tree.branches) + 1, device=positions.device),
        torch.tensor([tree.prompt, *tree.branches], device=positions.device),
    )
    distance = positions[:, None] - positions[None, :]
    sees = ((branch[None, :] == 0) | (branch[None, :] == branch[:, None])) & (distance >= 0)
    return sees if window is None else sees & (distance < window)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    trees: _Trees | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface over a packed row: (1, heads, N, d) each, block by block.

    A layer hands in its own ``sliding_window`` and ``softcap``, so layer types need no case of their own.
    """
    if trees is None:
        raise RuntimeError("tree attention was called without trees; call the model inside Scorer.plain()")
    if others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise NotImplementedError("attention sinks and position biases cannot be read as trees")
    groups = query.shape[1] // key.shape[1]
    # A CPU reads shared key heads as they are; CUDA's fast kernels do not take them together with a mask.
    shared = groups > 1 and query.device.type == "cpu" and softcap is None
    if groups > 1 and not shared:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    sizes = [tree.stop - tree.start for tree in trees.trees]
    blocks = []
    for i, (q, k, v) in enumerate(zip(*(x.split(sizes, 2) for x in (query, key, value)), strict=True)):
        mask = trees.mask(i, sliding_window, query.dtype)
        if softcap is None:
            block = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=shared
            )
        else:
            block = _softcapped(q, k, v, mask, scaling or q.shape[-1] ** -0.5, softcap, dropout)
        blocks.append(block.transpose(1, 2))
    return torch.cat(blocks, 1), None


def _softcapped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float, dropout: float) -> Tensor:
    """Attention with scores squeezed into (-cap, cap) before the mask (Gemma 2)."""
    scores = cap * torch.tanh(q @ k.mT * scale / cap) + mask
    weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
    return F.dropout(weights, dropout) @ v


AttentionInterface.register(ATTENTION, tree_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)  # the masks are made here, tree by tree


# ------------------------------------------------------------------------------------------------------- the probe


class Chosen(NamedTuple):
    """A layout, and the sentence that says why."""

    layout: Layout
    why: str


def rounding(model: nn.Module) -> float:
    """Nats a token by which two exact ways of computing one log-prob may differ, for the dtype ``model`` is held in.

    In half precision the largest of some thousand tokens: measured 0.3 to 0.9 in bfloat16, with a root mean square of
    0.06, by the shape of a batch and the number of threads. Another model differs by several nats somewhere.
    """
    return {torch.float32: 1e-3, torch.float64: 1e-6}.get(next(model.parameters()).dtype, 2.0)


def choose_layout(
    scorer: Scorer, batches: Mapping[Layout, Batch], possible: Sequence[Layout], *, tolerance: float | None = None
) -> Chosen:
    """The first of the ``possible`` layouts whose numbers are the plain model's.

    The plain model is transformers' own forward with full logits of padded rows. Sets the scorer to the layout chosen.

    Args:
        batches: the same examples in every layout; ``padded`` must be among them.

    Raises:
        ModelError: none of the possible layouts agrees.
    """
    tolerance = tolerance or rounding(scorer.causal)
    with torch.no_grad(), scorer.plain():
        truth = _plain_logprobs(scorer.causal, batches["padded"])
    tried = []
    for layout in possible:
        batch = batches[layout]
        scorer.use(packed=layout != "padded")
        try:
            with torch.no_grad():
                error = float((scorer(batch).token - truth).abs().max())
        except (NotImplementedError, TypeError, ValueError, RuntimeError) as refusal:
            tried.append(f"{layout}: {type(refusal).__name__}: {str(refusal).splitlines()[0]}")
            continue
        tried.append(f"{layout}: differs from the plain model by {error:.1e} nats a token")
        if error <= tolerance:
            return Chosen(layout, "; ".join(tried))
    raise ModelError(
        "no layout gives the plain model's log-probabilities: " + "; ".join(tried),
        where=type(scorer.causal).__name__,
        instead="The architecture does something between its layers and its logits that is not known here.",
    )


def _plain_logprobs(model: Any, batch: Batch) -> Tensor:
    """The same (B, T) log-probs the slow, obvious way: full logits of padded rows."""
    logits = model(input_ids=batch.ids, attention_mask=torch.ones_like(batch.ids), use_cache=False).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)[batch.source]
    token_M = -F.cross_entropy(logits, batch.target, reduction="none")
    return token_M[batch.rows.clamp(min=0)].masked_fill(batch.rows < 0, 0.0)


def probe_length(config: Any, longest: int) -> int:
    """Tokens a probe must have to be longer than every sliding window, as far as the data's ``longest`` row asks."""
    windows: Sequence[int | None] = [getattr(config.get_text_config(), "sliding_window", None)]
    return min(longest, max((w + 16 for w in windows if w), default=64))
