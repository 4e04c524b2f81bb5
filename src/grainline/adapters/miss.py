r"""MiSS, matrix shard sharing: one small matrix, shared by all shards of a layer's inputs.

Kang and Yin 2024, arXiv:2409.15371 (called Bone in its versions 4 and 5, DiSHA in 7, MiSS today); as in PEFT:

.. math:: y = W x + D^{\top} \sum_j x_{j},\qquad D \in \mathbb{R}^{r \times \mathrm{out}}

where x_j are the r-wide shards of the input, the last one padded with zeros. D = 0 at the start. The change repeats one
out x r block along the inputs, so its rank is r at most. With ``tile`` (MiSS-mini) D has that many columns and is
repeated along the outputs too. Half of LoRA's matrix products, and no activation is kept beside the layer's input.

PEFT's own class does the work. The method of the paper's first versions is ``bone``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from grainline.adapters._parts import check_modules, find_targets, named_targets, task_type, widths
from grainline.errors import ModelError
from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn


@spec
class MiSS:
    paper: ClassVar[str] = "arXiv:2409.15371"
    roles: ClassVar[dict[str, str]] = {"miss_block": "block"}
    changes_base: ClassVar[bool] = False

    rank: int = Field(32, ge=1)
    """Width of a shard, and rows of D. 32 trains about as many parameters as LoRA's rank 16; PEFT's default is 64."""
    tile: int | None = Field(None, ge=1)
    """Columns of D, repeated along the outputs, whose number it must divide (MiSS-mini); null = a column an output."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the inputs dropped in training before shards are added, in [0, 1). Above 0 answers cannot share a
    prompt."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules change: all-linear (without the output head), a list of names, or one regular expression that
    matches whole dotted names."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""
    modules_to_save: tuple[str, ...] = ()
    """Modules trained whole and stored with the adapter, e.g. lm_head."""

    @property
    def layouts(self) -> frozenset[str]:
        # Dropout draws anew for every position: a shared prompt would be one draw where the plain model makes two.
        return frozenset({"packed", "padded"} if self.dropout else {"tree", "packed", "padded"})

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``.

        Raises:
            ModelError: a target, layer or module to save that the model does not have, or that is too narrow.
        """
        import peft

        check_modules(model, self.modules_to_save)
        self._check_widths(model)
        return peft.MissConfig(
            task_type=task_type(model),
            r=self.rank,
            mini_r=self.tile or 1,
            init_weights="mini" if self.tile else True,
            miss_dropout=self.dropout,
            target_modules=find_targets(model, self.targets, self.layers),
            modules_to_save=list(self.modules_to_save) or None,
        )

    def _check_widths(self, model: nn.Module) -> None:
        """PEFT would name neither the module nor its size."""
        for name in named_targets(model, self.targets, self.layers):
            inputs, outputs = widths(model, name, linear=True)
            if self.rank > inputs:
                less = f"Choose {inputs} or less."
                raise ModelError(f"{name} has only {inputs} inputs.", where="adapter: rank", instead=less)
            if self.tile and outputs % self.tile:
                raise ModelError(f"{name} has {outputs} outputs, not a multiple of {self.tile}.", where="adapter: tile")
