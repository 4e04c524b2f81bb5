"""The truth that forwards are held against, the slow way: each (prompt, answer) alone, full logits, ``log_softmax``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from _build import gradients
from grainline.data.collate import collate
from grainline.forward import Scorer
from grainline.types import Example, Layout, LogProbs

LAYOUTS: tuple[Layout, ...] = ("tree", "packed", "padded")


def plain(causal: Any, examples: list[Example]) -> Tensor:
    """(B, T) log-probs, one (prompt, answer) at a time through transformers' own forward."""
    rows = [(e.prompt, e.answers[side].ids) for side in (0, 1) for e in examples]
    found = []
    for prompt, answer in rows:
        logits = causal(torch.tensor([prompt + answer]), use_cache=False).logits[0]
        logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        found.append(logprobs.gather(1, torch.tensor(answer)[:, None])[:, 0])
    return nn.utils.rnn.pad_sequence(found, batch_first=True)


def scored(scorer: Scorer, examples: list[Example], layout: Layout) -> LogProbs:
    scorer.use(packed=layout != "padded")
    return scorer(collate(examples, layout=layout))


def pulled(module: nn.Module, token: Tensor) -> dict[str, Tensor]:
    """Gradients of a weighted sum in which every token has a weight of its own."""
    module.zero_grad()
    (token * torch.cos(torch.arange(token.numel(), dtype=token.dtype)).view_as(token)).sum().backward()
    return gradients(module)
