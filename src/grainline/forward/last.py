"""The last layer's MLP at the positions that the head reads, and nowhere else.

Later tokens hear a token's keys and values, and the last layer's are taken before its MLP: what that MLP says of a
token reaches the loss through this token's own final state alone. Most tokens of a tree are prompt, whose final states
nobody reads, so here they pass the MLP by, forward and backward. What the head reads does not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def only_at(mlp: nn.Module, source: Tensor) -> Iterator[None]:
    """While this lasts, ``mlp`` answers the positions in ``source`` (M,), flattened as the batch's, and 0 elsewhere."""
    at = source if source.is_meta else source.unique()  # of a position that stood twice, backward would count both
    shapes: list[torch.Size] = []

    def narrow(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = args
        shapes.append(x.shape)
        return (x.flatten(0, 1)[None, at],)

    def widen(_: nn.Module, args: Any, found: Tensor) -> Tensor:
        shape = shapes.pop()
        return found.new_zeros(shape).flatten(0, 1).index_copy(0, at, found[0]).view(shape)

    hooks = [mlp.register_forward_pre_hook(narrow), mlp.register_forward_hook(widen)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
