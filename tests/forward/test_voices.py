"""Who is asked for what."""

from __future__ import annotations

from typing import Any

import torch

from _build import model, questions
from grainline.data.collate import collate
from grainline.forward import Scorer, voices


def test_the_reference_comes_first_and_only_who_needs_it_is_told() -> None:
    scorer, batch, calls = Scorer(model("llama")), collate(questions()), []

    def policy(batch: Any, *told: Any, **how: Any) -> Any:
        calls.append((len(told), how))
        return scorer(batch, *told, **how)

    with torch.no_grad():
        assert voices(policy, None, batch, frozenset())[1] is None
        voices(policy, scorer, batch, {"reference"})
        told, _ = voices(policy, lambda b: scorer(b, keep=("hidden",)), batch, {"reference", "kl"})
        assert voices(policy, None, batch, {"concentration"})[0].concentration is not None
    assert calls == [(0, {}), (0, {}), (1, {"kl": True}), (0, {"concentration": True})]
    assert told.kl is not None
