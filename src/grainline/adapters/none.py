"""No adapter: all weights of the model are trained.

The measure of what an adapter gives up, at many times its memory: AdamW alone holds two more numbers per weight. Once
trained there is no "adapter off", so the reference is a snapshot or a cache taken before the first step, and what is
shipped is a whole model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn


@spec
class NoAdapter:
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {}  # every tensor has the role "weight"
    changes_base: ClassVar[bool] = True
    exceptions: ClassVar[dict[str, str]] = {
        "merged is the adapted": "there is nothing to merge",
        "unmerging restores": "there is nothing to merge",
        "bfloat16 base": "the weights train as they are held, so a run asks for float32",
    }

    def config(self, model: nn.Module) -> None:
        """Nothing is attached."""
        return
