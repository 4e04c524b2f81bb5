r"""Bone, block-affine transformation ("Bat"): each weight is transformed block by block, by itself and a small matrix.

Kang and Yin 2024, arXiv:2409.15371, versions 1 to 3 (there "Bone: weight guide"); as in PEFT, where it is MiSS's "bat":

.. math:: W'_{ab} = W_{ab} + W_{ab} B_a + B_a, \qquad B_a \in \mathbb{R}^{r \times r}

for the blocks (a, b) of r x r of the weight: one matrix for each row of blocks, shared along the inputs, B = 0 at the
start. Because the frozen weight takes part, the change has full rank; the paper credits this for its lead over its own
later additive form (``miss``).

The changed weight is formed in each forward, which costs what r further tokens would; it is not kept for the backward
but formed again, so the memory of a step is LoRA's. For fewer than r / 2 tokens (generation) it is not formed at all:

.. math:: y_a = W_a x + \sum_b W_{ab} B_a x_b + B_a \sum_b x_b

The form of the step is ours; tensors, files and merging are PEFT's, whose class computes the same number.
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
class Bone:
    paper: ClassVar[str] = "arXiv:2409.15371"
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {"miss_block": "block"}
    changes_base: ClassVar[bool] = False

    block: int = Field(16, ge=1)
    """Rows and columns of a block; must divide inputs and outputs of every target. The paper and PEFT use 64."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules change: all-linear (without the output head), a list of names, or one regular expression that
    matches whole dotted names."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""
    modules_to_save: tuple[str, ...] = ()
    """Modules trained whole and stored with the adapter, e.g. lm_head."""

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``.

        Raises:
            ModelError: a target, layer or module to save that the model does not have, or that no block divides.
        """
        import math

        import peft

        check_modules(model, self.modules_to_save)
        names = named_targets(model, self.targets, self.layers)
        sizes = {name: widths(model, name, linear=True) for name in names}
        for name, (inputs, outputs) in sizes.items():
            if inputs % self.block or outputs % self.block:
                fits = math.gcd(*(width for size in sizes.values() for width in size))
                raise ModelError(
                    f"{name} is {outputs} x {inputs}, not made of blocks of {self.block}.",
                    where="adapter: block",
                    instead=f"Every target is made of blocks of {fits}, and of its divisors.",
                )
        return peft.MissConfig(
            task_type=task_type(model),
            r=self.block,
            init_weights="bat",
            target_modules=find_targets(model, self.targets, self.layers),
            modules_to_save=list(self.modules_to_save) or None,
        )

    def attached(self, model: nn.Module) -> None:
        """Let PEFT's fresh layers compute in the lean form."""
        from grainline.adapters.bone_torch import lean

        lean(model)
