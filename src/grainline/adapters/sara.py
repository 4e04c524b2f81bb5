r"""SARA: each matrix gets the rank that its own singular values ask for.

Gu et al. 2024, arXiv:2408.03290. The rank k of a frozen weight W is the number of leading singular values that together
reach a share m of the sum of all (Fig. 1); it is found once, before training, and stored with the adapter. Then

.. math:: y = W x + U\,\mathrm{diag}(\lambda)\,V^T x, \qquad
          U \in \mathbb{R}^{\mathrm{out} \times k},\ \lambda \in \mathbb{R}^k,\ V \in \mathbb{R}^{\mathrm{in} \times k}

with U, lambda and V trained: k (in + out + 1) parameters. There is no official code and the method section could not be
read: that all three are trained is a third party's account, and the start is ours (the change must be zero at first).
``init=default`` draws V as LoRA draws A, with lambda = 1 and U = 0; ``init=svd`` takes the singular vectors of W, with
lambda = 0, so that the first step moves lambda alone. Merges exactly, and is a LoRA of rank k with scale 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from grainline.adapters._parts import named_targets, task_type
from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn


@spec
class SARA:
    paper: ClassVar[str] = "arXiv:2408.03290"
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {"sara_V": "down", "sara_lambda": "spectrum", "sara_U": "up"}
    changes_base: ClassVar[bool] = False
    exceptions: ClassVar[dict[str, str]] = {
        "parameters as stated": "ranks follow from the weights; a plan takes those of random matrices, which are larger"
    }

    share: float = Field(0.05, gt=0, le=1)
    """Share of the sum of singular values that the rank must reach, in (0, 1]."""
    reading: Literal["reach", "below"] = "reach"
    """Which rank: the smallest that reaches the share, or (below) the largest that stays below it, at least 1."""
    max_rank: Annotated[int, Field(ge=1)] | None = None
    """No matrix gets more than this; null = no limit."""
    init: Literal["default", "svd"] = "default"
    """Start: V random and U zero, or the singular vectors with lambda zero."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules change: all-linear (without the output head), a list of names, or one regular expression that
    matches whole dotted names."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``: the singular values of its targets are computed here.

        Without weights (``grainline plan``) the ranks are those of random matrices, which are larger than real ones.

        Raises:
            ModelError: a target or layer that the model does not have.
        """
        from grainline.adapters._spectral import ranks
        from grainline.adapters.sara_torch import SaraConfig

        names = named_targets(model, self.targets, self.layers)
        found = ranks(model, names, self.share, strictly_below=self.reading == "below", most=self.max_rank)
        return SaraConfig(
            task_type=task_type(model),
            target_modules=names,
            ranks=found,
            init=self.init,
        )
