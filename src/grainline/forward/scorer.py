"""The Scorer: the module that is prepared, wrapped and called, for the policy and for the reference alike.

Reaching around it for the body or the head's weight would miss what DDP and FSDP do on a call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from grainline import cpu
from grainline.forward import divergence
from grainline.forward.fuse import Fused, fuse
from grainline.forward.head import answer_logprobs, answer_logprobs_and_concentration
from grainline.forward.states import Tap, Watch, by_row, once
from grainline.forward.trees import ATTENTION, Trees
from grainline.types import Batch, LogProbs, Seen


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
        self.reference_head: nn.Module | None = None  # where the model's own is not, or will not stay, the reference's
        self.heads: nn.Module | None = None  # the objective's own modules, which look at the reference
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
        self.fused = fuse(self.model, self.glance)
        return self.fused.why

    def glance(self) -> Tensor:
        """The model's logits of two tokens: through all layers, at the least cost."""
        ids = torch.zeros(1, 2, dtype=torch.long, device=next(self.parameters()).device)
        with self.plain() as model:
            return model(input_ids=ids, use_cache=False).logits

    @contextmanager
    def plain(self) -> Iterator[Any]:
        """The model with its own attention, for generation and for the outside world."""
        packed = self.packed
        self.use(packed=False)
        try:
            yield self.model
        finally:
            self.use(packed=packed)

    def forward(
        self,
        batch: Batch,
        against: LogProbs | None = None,
        *,
        kl: bool = False,
        concentration: bool = False,
        keep: Collection[str] = (),
    ) -> LogProbs:
        """log p(token | prompt, tokens before it) for every answer token, float32 (or wider), in nats.

        Args:
            against: what the reference says of the batch, with the hidden states it kept.
            kl: take the divergence from it too.
            concentration: say too how concentrated each token's distribution is, without gradient.
            keep: what else is kept of this forward: see :mod:`grainline.forward.states`.

        Returns:
            LogProbs with (B, T) rows in the order of ``batch.rows``; 0 outside the answers.
        """
        body = getattr(self.causal, self.causal.base_model_prefix)
        with Watch(body, keep, batch.source) as watch, self._operations(keep), self._full_width():
            found = self._read(body, batch, layers="layers" in keep)
        hidden_MH = found.last_hidden_state.flatten(0, 1)[batch.source]
        against_MH = once(batch, against.hidden[:, :, -1]) if kl and against and against.hidden is not None else None
        with self._full_width():
            said_M = self._say(hidden_MH, batch.target, against_MH, concentration)
        more: dict[str, Any] = {name: by_row(batch, value_M) for name, value_M in said_M.items()}
        said = batch.logprobs(more.pop("token"))._replace(**more)
        if self.heads is not None and against is not None and against.hidden is not None:
            head = self.reference_head or self.causal.get_output_embeddings()
            target_BT = by_row(batch, batch.target)
            said = said._replace(
                heads=self.heads(Seen(against, target_BT, divergence.logits_of(head, self.causal.config)))
            )
        if keep:
            kept = watch.kept(keep, found, self.causal)
            rows: dict[str, Any] = {name: by_row(batch, value_M) for name, value_M in kept.items()}
            said = said._replace(**rows)
        return said

    def states(self, batch: Batch, layers: Sequence[int]) -> Tensor:
        """(M, L, H) what the model holds after each of ``layers`` (from 1) where an answer token is predicted.

        No head is read, and no layer above the highest that is asked for.
        """
        body = getattr(self.causal, self.causal.base_model_prefix)
        with self._operations(()), self._full_width():
            found = Tap(body, layers).read(lambda: self._read(body, batch, layers=False))
        return torch.stack([found[layer].flatten(0, 1)[batch.source] for layer in layers], 1)

    def _say(
        self, hidden_MH: Tensor, target_M: Tensor, against_MH: Tensor | None, concentration: bool
    ) -> dict[str, Tensor]:
        """(M,) each, by the names of LogProbs: the tokens' log-probs and what else is asked of their distributions."""
        if against_MH is None and not concentration:
            return {"token": answer_logprobs(self.causal, hidden_MH, target_M)}
        if against_MH is None:
            token_M, concentration_M = answer_logprobs_and_concentration(self.causal, hidden_MH, target_M)
            return {"token": token_M, "concentration": concentration_M}
        token_M, kl_M = divergence.answer_logprobs_and_kl(
            self.causal, hidden_MH, target_M, against_MH, self.reference_head
        )
        said_M = {"token": token_M, "kl": kl_M}
        if concentration:  # only a sum of methods asks for both: the head is read once more, which costs no gradient
            with torch.no_grad():
                said_M["concentration"] = answer_logprobs_and_concentration(self.causal, hidden_MH, target_M)[1]
        return said_M

    def _operations(self, keep: Collection[str]) -> AbstractContextManager[None]:
        """Larger operations, unless inner activations are looked at, or layers run again in backward, out of reach."""
        plain = self.fused is None or "activations" in keep or _checkpointed(self.causal)
        return nullcontext() if plain or self.fused is None else self.fused.reading()

    def _full_width(self) -> AbstractContextManager[None]:
        return cpu.full_width(next(self.parameters()).is_cpu)

    def _read(self, body: Any, batch: Batch, *, layers: bool) -> Any:
        """What the body makes of the tokens; the states after each layer too, where ``layers`` are asked for."""
        # Padding stands on the right, where no causal answer token can see it: nothing needs to be masked.
        layout: dict[str, Any] = {"attention_mask": torch.ones_like(batch.ids)}
        if self.packed:
            layout = {"trees": Trees(batch, by_products=self.by_products)}
        if not _learns_a_prompt(self.model):
            more = {"output_hidden_states": True} if layers else {}
            return body(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **layout, **more)
        # PEFT puts the prompt before the tokens around the whole model; its head is asked for one token, in vain.
        model: Any = self.model
        said = model(input_ids=batch.ids, **layout, output_hidden_states=True, logits_to_keep=1, use_cache=False)
        states = tuple(state[:, -batch.ids.shape[1] :] for state in said.hidden_states)
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=states)


def _learns_a_prompt(model: Any) -> bool:
    """Whether the active adapter adds to what the model reads, rather than to its layers."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def _checkpointed(causal: Any) -> bool:
    """Whether layers keep no activations: transformers has renamed the flag."""
    return bool(getattr(causal, "is_activation_checkpointing", getattr(causal, "is_gradient_checkpointing", False)))
