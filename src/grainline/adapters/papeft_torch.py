"""PAPEFT's tensors: what is added to the separator's vector at each place.

Unlike our other tuners this one wraps a table: its layer is given token ids.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from grainline.adapters._frozen import Frozen
from grainline.adapters._tuner import Change, ChangedLayer, TunerConfig


class AsMarker:
    """Added ids -> the separator. A pre-hook of the table until it is wrapped."""

    def __init__(self, first: int, added: int, marker: int) -> None:
        self.first, self.added, self.marker = first, added, marker

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self.read(args[0]), *args[1:])

    def number(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Which added id each one is (anything where it is none), and whether it is one."""
        n = ids - self.first
        return n.clamp(0, self.added - 1), (n >= 0) & (n < self.added)

    def read(self, ids: Tensor) -> Tensor:
        return ids.masked_fill(self.number(ids)[1], self.marker)


class PapeftChange(Change):
    kinds = (nn.Embedding,)

    def __init__(self, layer: Frozen, config: PapeftConfig, name: str) -> None:
        super().__init__(layer, config, name)
        d, outputs = config.width, config.tokens * layer.outputs
        self.ids = AsMarker(config.first, config.locations * config.tokens, config.marker)
        self.unmergeable = _unmergeable(layer, config)  # type: ignore[misc]
        self.papeft_E = nn.Parameter(torch.randn(config.locations, d, **layer.like))
        self.papeft_W1 = nn.Parameter(torch.empty(d, d, **layer.like))
        self.papeft_b1 = nn.Parameter(torch.zeros(d, **layer.like))
        self.papeft_W2 = nn.Parameter(torch.zeros(outputs, d, **layer.like))
        self.papeft_b2 = nn.Parameter(torch.zeros(outputs, **layer.like))
        nn.init.kaiming_uniform_(self.papeft_W1, a=math.sqrt(5))
        hooks = layer.module._forward_pre_hooks  # from here on the layer reads added ids itself
        for key in [key for key, hook in hooks.items() if isinstance(hook, AsMarker)]:
            del hooks[key]

    def shifts(self) -> Tensor:
        """(K t, O) what is added to the separator's vector, by added id."""
        inner = torch.tanh(nn.functional.linear(self.papeft_E, self.papeft_W1, self.papeft_b1))
        by_location = nn.functional.linear(inner, self.papeft_W2, self.papeft_b2)
        return by_location.view(self.ids.added, -1)

    def shifted(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """``vectors`` (..., O) that the table gave for ``ids`` (...), moved where these are added ids."""
        number, there = self.ids.number(ids)
        shifts = self.shifts()
        moved = (vectors.to(shifts.dtype) + shifts[number]).to(vectors.dtype)
        return torch.where(there.unsqueeze(-1), moved, vectors)

    def merged(self, weight_OI: Tensor) -> Tensor:
        weight, first = weight_OI.clone(), self.ids.first
        weight[:, first : first + self.ids.added] = weight[:, self.ids.marker, None] + self.shifts().T
        return weight


class LocatedLayer(ChangedLayer):
    """A table of tokens with added ids, which stand for the separator wherever no adapter says otherwise."""

    shares_head = False  # the table stays as it is, tied or not

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # x: ids (...)
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.merged:
            return self.base_layer(x, *args, **kwargs)
        change = None if self.disable_adapters else self._active_change()
        known = x
        for one in self.changes.values():
            known = one.ids.read(known)  # type: ignore[union-attr,operator]
        vectors = self.base_layer(known, *args, **kwargs)
        return vectors if change is None else change.shifted(vectors, x)  # type: ignore[operator]

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return False  # a LoRA of a table knows the table's own ids


@dataclasses.dataclass
class PapeftConfig(TunerConfig):
    tuner = "papeft"
    change = PapeftChange
    layer = LocatedLayer
    added_ids = True

    marker: int = 0
    locations: int = 20
    tokens: int = 1
    width: int = 128
    first: int = 2**24
    tied: bool = False  # the output head is the same tensor as the table


def _unmergeable(layer: Frozen, config: PapeftConfig) -> str:
    if config.first >= layer.inputs:
        return "its ids lie beyond the model's table (give reserved tokens as papeft's first)"
    if config.tied:
        return "the output head is the same table, and would answer differently"
    if type(layer.module) is not nn.Embedding:
        return f"{type(layer.module).__name__} does more than look up"
    return ""
