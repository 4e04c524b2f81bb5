"""Tree attention: its masks by hand, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from _build import example, model
from grainline.data.collate import collate
from grainline.forward import Scorer
from grainline.forward.trees import Trees, tree_attention, tree_mask
from grainline.types import Tree

TREE, POSITIONS = Tree(0, 2, (2, 1)), torch.tensor([0, 1, 2, 3, 2])  # prompt a b, answers c d and e


def test_tree_mask_by_hand() -> None:
    assert tree_mask(TREE, POSITIONS, None).int().tolist() == [
        # a  b  c  d  e
        [1, 0, 0, 0, 0],  # a
        [1, 1, 0, 0, 0],  # b
        [1, 1, 1, 0, 0],  # c
        [1, 1, 1, 1, 0],  # d
        [1, 1, 0, 0, 1],  # e: the prompt and itself
    ]


def test_tree_mask_with_a_window_by_hand() -> None:
    assert tree_mask(TREE, POSITIONS, 2).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 1, 0, 0, 1],  # e stands at position 2: b is one away, a two
    ]


def test_tree_mask_of_one_answer_is_causal() -> None:
    assert torch.equal(tree_mask(Tree(0, 3, (4,)), torch.arange(7), None), torch.ones(7, 7).tril().bool())


def test_attention_without_trees_is_refused() -> None:
    scorer = Scorer(model("llama"))
    with pytest.raises(RuntimeError, match=r"Scorer\.plain"):
        scorer.model(torch.tensor([[3, 4, 5]]))


@pytest.mark.parametrize("extra", ["s_aux", "position_bias"])
def test_what_trees_cannot_carry_is_refused(extra: str) -> None:
    q = torch.zeros(1, 1, 2, 4)
    trees = Trees(collate([example(0, [3, 4], [5], [6])]))
    with pytest.raises(NotImplementedError, match="cannot be read as trees"):
        tree_attention(nn.Identity(), q, q, q, None, trees=trees, **{extra: torch.zeros(1)})
