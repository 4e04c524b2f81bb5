"""Full training: everything is free, and nothing is wrapped."""

from __future__ import annotations

from typing import Any

from grainline import rooms
from grainline.adapters._seam import attach, tagged
from grainline.adapters.none import NoAdapter


def test_the_model_itself_trains_whole(tiny_llama: Any) -> None:
    tiny_llama.requires_grad_(False)
    model = attach(NoAdapter(), tiny_llama)
    assert model is tiny_llama
    assert {tag.role for tag in tagged(NoAdapter(), model)} == {"weight"}
    assert len(tagged(NoAdapter(), model)) == len(list(model.parameters()))


def test_off_is_not_the_base() -> None:
    assert NoAdapter().changes_base
    assert rooms.text(NoAdapter()) == "none"
