"""What was found of a model's layouts is found again for the same, and for nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from _build import model, questions
from grainline import layout_memory
from grainline.data.collate import collate
from grainline.forward import Scorer
from grainline.layout_memory import remembered
from grainline.types import Batch, Layout

POSSIBLE: tuple[Layout, ...] = ("tree", "padded")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The layouts of every real trial, in an empty memory."""
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path))
    own, found = layout_memory.choose_layout, []

    def choose(scorer: Any, batches: Any, possible: Any) -> Any:
        found.append(list(possible))
        return own(scorer, batches, possible)

    monkeypatch.setattr(layout_memory, "choose_layout", choose)
    return found


def batches(count: int = 4) -> Mapping[Layout, Batch]:
    return {layout: collate(questions()[:count], layout=layout) for layout in POSSIBLE}


def test_the_same_is_tried_once(tried: list[Any]) -> None:
    first, second = (Scorer(model("llama"), packed=False) for _ in range(2))
    found = remembered(["weights"])(first, batches(), POSSIBLE)
    again = remembered(["weights"])(second, batches(), POSSIBLE)
    assert (len(tried), found.layout, again.layout) == (1, "tree", "tree")
    assert first.packed
    assert second.packed
    assert again == found


def test_whatever_is_new_is_tried(tried: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fused = Scorer(model("llama"))
    fused.fuse()
    asked: list[tuple[Scorer, int, tuple[Layout, ...], str]] = [
        (Scorer(model("llama")), 4, POSSIBLE, "weights"),
        (Scorer(model("llama")), 4, POSSIBLE, "other weights"),
        (Scorer(model("llama")), 4, ("padded",), "weights"),
        (Scorer(model("llama")), 3, POSSIBLE, "weights"),
        (Scorer(model("llama", torch.float64)), 4, POSSIBLE, "weights"),
        (Scorer(model("qwen2")), 4, POSSIBLE, "weights"),
        (fused, 4, POSSIBLE, "weights"),
    ]
    for scorer, rows, possible, weights in asked:
        remembered([weights])(scorer, batches(rows), possible)
    assert len(tried) == len(asked)
    monkeypatch.setattr(layout_memory.importlib.metadata, "version", lambda package: "another")
    remembered(["weights"])(asked[0][0], batches(), POSSIBLE)
    assert len(tried) == len(asked) + 1


def test_a_damaged_file_is_found_again(tried: list[Any], tmp_path: Path) -> None:
    scorer = Scorer(model("llama"))
    found = remembered([])(scorer, batches(), POSSIBLE)
    (file,) = (tmp_path / "layouts").iterdir()
    for damage in ("", "[1]", '{"layout": "tree"}'):
        file.write_text(damage, encoding="utf-8")
        assert remembered([])(scorer, batches(), POSSIBLE) == found
    assert len(tried) == 4
