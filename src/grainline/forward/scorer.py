"""The Scorer: the module that is prepared, wrapped and called, for the policy and for the reference alike.

Reaching around it for the body or the head's weight would miss what DDP and FSDP do on a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from grainline.forward.fuse import Fused, fuse
from grainline.forward.head import answer_logprobs
from grainline.forward.trees import ATTENTION, Trees
from grainline.types import Batch, LogProbs


class Scorer(nn.Module):
    """Token log-probabilities of a batch's answers under a causal language model.

    Args:
        model: a transformers causal LM, or a PeftModel around one.
        packed: whether batches are packed rows (trees) or padded ones.
    """

    by_products: bool | None = None
    """How trees attend: see :class:`~grainline.forward.trees.Trees`."""

    def __init__(self, model: nn.Module, *, packed: bool = True) -> None:
        super().__init__()
        self.model = model
        self.fused: Fused | None = None
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

    def fuse(self) -> str:
        """Read with larger operations where they are proved to fit, as the model now is; says what was found."""
        device = next(self.parameters()).device

        def rows() -> None:
            with self.plain() as model:
                model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device))

        self.fused = fuse(self.model, rows)
        return self.fused.why

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
        # Checkpointed layers run again in backward, outside of this: they keep to their own operations.
        with self.fused.reading() if self.fused and not _checkpointed(self.causal) else nullcontext():
            hidden_MH = self._hidden(batch).flatten(0, 1)[batch.source]
        token_M = answer_logprobs(self.causal, hidden_MH, batch.target)
        return batch.logprobs(token_M[batch.rows.clamp(min=0)].masked_fill(batch.rows < 0, 0.0))

    def _hidden(self, batch: Batch) -> Tensor:
        """(rows, positions, H) what the body makes of the batch's tokens."""
        # Padding stands on the right, where no causal answer token can see it: nothing needs to be masked.
        layout: dict[str, Any] = {"attention_mask": torch.ones_like(batch.ids)}
        if self.packed:
            layout = {"trees": Trees(batch, by_products=self.by_products)}
        if _learns_a_prompt(self.model):
            # PEFT puts the prompt before the tokens around the whole model; its head is asked for one token, in vain.
            model: Any = self.model
            said = model(input_ids=batch.ids, **layout, output_hidden_states=True, logits_to_keep=1, use_cache=False)
            return said.hidden_states[-1][:, -batch.ids.shape[1] :]
        body = getattr(self.causal, self.causal.base_model_prefix)
        return body(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **layout).last_hidden_state


def _learns_a_prompt(model: Any) -> bool:
    """Whether the active adapter adds to what the model reads, rather than to its layers."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def _checkpointed(causal: Any) -> bool:
    """Whether layers keep no activations: transformers has renamed the flag."""
    return bool(getattr(causal, "is_activation_checkpointing", getattr(causal, "is_gradient_checkpointing", False)))
