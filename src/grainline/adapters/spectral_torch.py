"""Spectral Adapter's tensors. ``K``: tuned columns."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grainline.adapters._frozen import Frozen, added
from grainline.adapters._orthogonal import Cayley
from grainline.adapters._spectral import factors
from grainline.adapters._tuner import Change, ChangedLayer, TunerConfig
from grainline.errors import ModelError


class SpectralChange(Change):
    U: Tensor  # (outputs, K)
    S: Tensor  # (K,)
    V: Tensor  # (fan_in, K)

    def __init__(self, layer: Frozen, config: SpectralConfig, name: str) -> None:
        super().__init__(layer, config, name)
        rank, like = sum(stop - start for start, stop in config.columns), layer.like
        self.additive = config.mode == "additive"
        if self.additive:
            self.spectral_A_U = nn.Parameter(torch.zeros(layer.outputs, rank, **like))
            self.spectral_A_V = nn.Parameter(torch.zeros(layer.fan_in, rank, **like))
        else:
            self.spectral_Q_a, self.spectral_Q_b = Cayley(rank, **like), Cayley(rank, **like)
        self.spectral_values = nn.Parameter(torch.zeros(rank, **like)) if config.values else None
        for letter, shape in (("U", (layer.outputs, rank)), ("S", (rank,)), ("V", (layer.fan_in, rank))):
            self.register_buffer(letter, torch.zeros(shape, **like))
        if not config.stored and not self.S.is_meta:
            (start, stop), weight = config.columns[0], layer.weight_OI
            found = factors(weight, stop, randomised=config.randomised)
            self.U, self.S, self.V = (part[..., start:stop].contiguous().to(self.S) for part in found)

    def forward(self, x: Tensor, layer: Frozen) -> Tensor:
        down_KI, up_OK = self._thin()
        return added(layer(x), layer.read(x, down_KI), up_OK)

    def merged(self, weight_OI: Tensor) -> Tensor:
        down_KI, up_OK = self._thin()
        return weight_OI + up_OK @ down_KI

    def _thin(self) -> tuple[Tensor, Tensor]:
        """The change as up @ down, written so that it is exactly zero at the start."""
        if not self.additive:
            scale = self.S if self.spectral_values is None else self.S * (1 + self.spectral_values)
            turned = (self.spectral_Q_a.matrix() * scale) @ self.spectral_Q_b.matrix().T
            return self.V.T, self.U @ (turned - torch.diag(self.S))
        # (U + A) s (V + B)' - U S V' = (A s) (V + B)' + U (s B' + c V'), with s = S + c
        moved_V = self.V + self.spectral_A_V
        if self.spectral_values is None:
            back = self.S * self.spectral_A_V
            return torch.cat((moved_V, back), 1).T, torch.cat((self.spectral_A_U * self.S, self.U), 1)
        scale = self.S + self.spectral_values
        back = scale * self.spectral_A_V + self.spectral_values * self.V
        return torch.cat((moved_V, back), 1).T, torch.cat((self.spectral_A_U * scale, self.U), 1)


@dataclasses.dataclass
class SpectralConfig(TunerConfig):
    tuner = "spectral"
    change = SpectralChange

    mode: str = "additive"
    columns: list[Any] = dataclasses.field(default_factory=lambda: [(0, 8)])  # (start, stop) of each tuned block
    values: bool = False
    randomised: bool = False


def fuse(model: Any, names: Sequence[str], into: str) -> None:
    """Make of several spectral adapters of one PeftModel a further one that does what all of them do, and activate it.

    Exact: the changed weight is W plus the sum of their changes, because they tune different columns.

    Raises:
        ModelError: an adapter that is not spectral or not like the first, or columns that two of them share.
    """
    configs = [model.peft_config.get(name) for name in names]
    first = _check_fusible(names, configs)
    columns = [tuple(block) for config in configs for block in config.columns]
    model.add_adapter(into, dataclasses.replace(first, columns=columns, stored=True))
    for layer in model.modules():
        if isinstance(layer, ChangedLayer) and into in layer.changes:
            _join(layer.changes[into], [layer.changes[name] for name in names])
    model.set_adapter(into)


def _check_fusible(names: Sequence[str], configs: Sequence[Any]) -> SpectralConfig:
    for name, config in zip(names, configs, strict=True):
        if not isinstance(config, SpectralConfig):
            raise ModelError(f"{name!r} is no spectral adapter of this model.", where="fuse")
        for field in ("mode", "values", "target_modules"):
            if getattr(config, field) != getattr(configs[0], field):
                raise ModelError(f"{name!r} differs from {names[0]!r} in {field}.", where="fuse")
    taken = sorted(
        (tuple(block), name) for name, config in zip(names, configs, strict=True) for block in config.columns
    )
    for (block, one), (following, other) in itertools.pairwise(taken):
        if following[0] < block[1]:
            raise ModelError(
                f"{one!r} and {other!r} tune the same columns.", where="fuse", instead="Train them on other blocks."
            )
    return configs[0]


@torch.no_grad()
def _join(whole: Any, parts: Sequence[Any]) -> None:
    """Columns beside columns; generators of rotations become blocks on a diagonal."""
    for name, tensor in (*whole.named_parameters(), *whole.named_buffers()):
        pieces = [dict(part.state_dict(keep_vars=True))[name] for part in parts]
        square = name.endswith("generator")
        tensor.copy_(torch.block_diag(*pieces) if square else torch.cat(pieces, dim=-1))
