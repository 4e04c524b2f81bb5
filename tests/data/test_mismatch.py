"""Answers to other prompts: whose they are, and how a batch holds them."""

from __future__ import annotations

import pytest
import torch

from _build import example, many
from grainline.data.collate import collate, pack, tokens
from grainline.data.mismatch import mismatch
from grainline.errors import RecipeError

ROWS = [
    example(0, [3, 4], [5, 6], label=True),
    example(1, [3, 4], [7], label=False),
    example(2, [8, 9, 10], [11, 12, 13], label=True),
]


def test_the_next_row_with_another_prompt_goes_round() -> None:
    assert [[a.ids for a in e.others] for e in mismatch(ROWS)] == [[(11, 12, 13)], [(11, 12, 13)], [(5, 6)]]
    pairs = [example(0, [3], [4], [5]), ROWS[2], example(1, [6], [7], [8])]
    assert [[a.ids for a in e.others] for e in mismatch(pairs)] == [
        [(11, 12, 13), (11, 12, 13)],
        [(7,)],
        [(4,), (5,)],
    ]


def test_one_prompt_alone_is_refused() -> None:
    for rows in (ROWS[:1], ROWS[:2]):
        with pytest.raises(RecipeError, match="one prompt only"):
            mismatch(rows)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_they_stand_behind_the_rows_and_are_read(layout: str) -> None:
    rows = mismatch(ROWS)
    batch = collate(rows, rows="labels", layout=layout)  # type: ignore[arg-type]
    assert batch.facts.ids == ("0", "1", "2")
    assert (batch.rows >= 0).sum(-1).tolist() == [2, 1, 3, 3, 3, 2]
    said = [batch.target[row[row >= 0]].tolist() for row in batch.rows]
    assert said == [[5, 6], [7], [11, 12, 13], [11, 12, 13], [11, 12, 13], [5, 6]]
    assert len(batch.keys) == 6
    assert batch.ids.numel() == tokens(rows, layout)  # type: ignore[arg-type]
    if layout == "tree":
        assert [len(tree.branches) for tree in batch.trees] == [3, 2]  # an answer that two rows share is read once
    assert torch.equal(batch.weight > 0, batch.rows >= 0)


def test_a_step_is_split_with_them_counted() -> None:
    rows = mismatch(many(12))
    for part in pack(rows, max_tokens=80):
        assert tokens(part) <= 80 or len(part) == 1
