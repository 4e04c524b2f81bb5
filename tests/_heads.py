"""Heads of all kinds for tests, and a watch over what exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from _build import adapted, model


def with_biased_head() -> Any:
    """A Phi, whose head has a bias, far from zero."""
    made = model("phi", torch.float64)
    with torch.no_grad():
        made.lm_head.bias.copy_(torch.linspace(-2, 2, 64))
    return made


HEADS: dict[str, Callable[[], Any]] = {
    "frozen": lambda: adapted(model("llama", torch.float64)),
    "frozen, tied": lambda: adapted(model("llama", torch.float64, tie_word_embeddings=True)),
    "frozen bias": lambda: adapted(with_biased_head()),
    "soft-cap": lambda: adapted(model("gemma2", torch.float64)),
    "scale": lambda: adapted(model("cohere", torch.float64)),
    "trained whole": lambda: adapted(model("llama", torch.float64), modules_to_save=("lm_head",)),
    "adapted": lambda: adapted(model("llama", torch.float64), targets=("q_proj", "lm_head")),
    "adapted bias": lambda: adapted(with_biased_head(), targets=("q_proj", "lm_head")),
    "all trains, tied": lambda: model("llama", torch.float64, tie_word_embeddings=True).requires_grad_(True),
    "head alone trains": lambda: only_head(model("llama", torch.float64)),
}


def only_head(made: Any) -> Any:
    made.requires_grad_(False)
    made.lm_head.requires_grad_(True)
    return made


class Largest(TorchDispatchMode):
    """Remembers the most elements that any operation's result had."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return out
