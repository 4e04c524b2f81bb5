"""Sparsity of learned masks by position, by hand."""

from __future__ import annotations

from grainline.evaluation import masks

ROWS = [
    {"id": "a", "chosen": {"tokens": 3, "mask mask": [0.0, 0.5, 1.0]}, "rejected": {"tokens": 1, "mask mask": [0.0]}},
    {"id": "b", "chosen": {"tokens": 2, "mask mask": [0.5, 0.0]}, "rejected": {"tokens": 1, "mask mask": [1.0]}},
]


def test_by_hand() -> None:
    assert masks.figures(ROWS) == {"masks/mask/zeros": 3 / 7, "masks/mask/mean": 3 / 7}
    assert [(line["from"], line["tokens"], line["zeros"]) for line in masks.positions(ROWS)] == [
        (0, 4, 2 / 4), (1, 2, 1 / 2), (2, 1, 0.0),
    ]  # fmt: skip


def test_no_masks_no_figures() -> None:
    assert masks.figures([{"id": "a", "answer": {"tokens": 1, "policy": [0.0]}}]) == {}
