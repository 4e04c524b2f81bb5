"""What the library's head is measured against: the same log-probs in the two ways that come to mind first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from grainline.forward import Scorer
from grainline.forward.trees import Trees
from grainline.types import Batch, LogProbs


class EveryPosition(Scorer):
    """Logits at every position, prompt and padding included, whole: what ``model(ids).logits`` gives."""

    def forward(self, batch: Batch) -> LogProbs:
        hidden = _hidden(self, batch)
        logprobs = self.causal.get_output_embeddings()(hidden).float().log_softmax(-1)
        return _table(batch, logprobs[batch.source, batch.target])


class AnswerPositions(Scorer):
    """Logits where an answer token is predicted, whole; autograd keeps them for backward."""

    def forward(self, batch: Batch) -> LogProbs:
        hidden = _hidden(self, batch)[batch.source]
        logits = self.causal.get_output_embeddings()(hidden).float()
        return _table(batch, -F.cross_entropy(logits, batch.target, reduction="none"))


def _hidden(scorer: Scorer, batch: Batch) -> Tensor:
    """The body's last hidden states at every position, flattened."""
    body = getattr(scorer.causal, scorer.causal.base_model_prefix)
    layout: dict[str, Any] = {"attention_mask": torch.ones_like(batch.ids)}
    if scorer.packed:
        layout = {"trees": Trees(batch, by_products=scorer.by_products)}
    found = body(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **layout)
    return found.last_hidden_state.flatten(0, 1)


def _table(batch: Batch, token_M: Tensor) -> LogProbs:
    return batch.logprobs(token_M[batch.rows.clamp(min=0)].masked_fill(batch.rows < 0, 0.0))
