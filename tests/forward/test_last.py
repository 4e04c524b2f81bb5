"""The last MLP reads what the head reads, and loss and gradients do not notice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from _build import adapted, apart, model, questions
from _truth import LAYOUTS, pulled, scored
from grainline.data.collate import collate
from grainline.forward import Scorer
from grainline.forward.last import only_at
from grainline.types import Layout


def test_values_and_derivatives_by_hand() -> None:
    """y = (2 x)^2 at positions 1 and 2, asked for with a repetition, and 0 at the others: dy/dx = 8 x there."""
    x = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]], requires_grad=True)

    class Squares(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (2 * x) ** 2

    module = Squares()
    with only_at(module, torch.tensor([2, 1, 2])):
        y = module(x)
    y.sum().backward()
    assert y.flatten().tolist() == [0, 16, 36, 0]
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 16, 24, 0]
    assert module(x).flatten().tolist() == [4, 16, 36, 64]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_last_mlp_reads_fewer_tokens(layout: Layout) -> None:
    """Tokens that each MLP reads: all of the batch, and in the last layer those that predict an answer token."""
    scorer = Scorer(adapted(model("llama", torch.float64)))
    wanted = pulled(scorer, truth := scored(scorer, questions(), layout).token)
    scorer.fuse()
    read: list[int] = []
    for layer in scorer.causal.model.layers:
        layer.mlp.up_proj.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[:-1].numel()))
    found = scored(scorer, questions(), layout).token
    batch = collate(questions(), layout=layout)
    assert read == [batch.ids.numel(), len(set(batch.source.tolist()))]
    assert read[1] < read[0]
    assert float((found - truth).detach().abs().max()) < 1e-6
    assert apart(pulled(scorer, found), wanted) < 1e-6


def test_a_learnt_prompt_moves_positions_and_is_read_whole() -> None:
    from peft import PromptTuningConfig, get_peft_model

    made: Any = get_peft_model(
        model("llama", torch.float64), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    )
    scorer = Scorer(made, packed=False)
    wanted = pulled(scorer, truth := scored(scorer, questions(), "padded").token)
    scorer.fuse()
    found = scored(scorer, questions(), "padded").token
    assert float((found - truth).detach().abs().max()) < 1e-6
    assert apart(pulled(scorer, found), wanted) < 1e-6
