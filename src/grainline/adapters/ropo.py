r"""RoPO: weights may only turn, all neurons of a layer together, and grow or shrink; their angles to each other stay.

Yang et al. 2024 and 2025, arXiv:2409.14836 and arXiv:2508.17637 (EMNLP 2025). Overfitting of DPO goes with a change of
the hyperspherical energy, the crowding of a layer's neurons w_i (rows of W),

.. math:: \mathrm{HE}(W) = \sum_{i \ne j} \lVert \hat w_i - \hat w_j \rVert^{-1}, \qquad \hat w = w / \lVert w \rVert

which no rotation shared by all rows and no positive length changes. So, with the plain loss of DPO,

.. math:: z_i = m_i\,\hat w_i \cdot R^T x, \qquad R^T R = I,\ m_i > 0

R starts at I and m_i at the length of w_i. Computed by turning the input, running the frozen layer and scaling its
output, so that a quantised base stays as it is; or, where a plain matrix meets enough tokens, by a weight turned and
scaled for the call.

How the paper builds R could not be read ("multi-granularity"), and there is no code: this is RoPO in its style. Our
choices, which fit the published parameter counts but are not proved by them (``d`` inputs)

====================  ==================================================================================================
givens                two trees of Givens rotations, towards one axis and back: 2 (d - 1) angles
givens+householder    and a pair of reflections over the whole space: 2 d more
pairs                 one angle for each pair of coordinates, d / 2
====================  ==================================================================================================

m_i is stored as the logarithm of its ratio to the start, so that it cannot change sign (a neuron turned round would
change the energy). The backward pass keeps the input, which LoRA keeps too (or what it was
turned into), and for the magnitude an output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from grainline.adapters._parts import named_targets, task_type
from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn


@spec
class RoPO:
    paper: ClassVar[str] = "arXiv:2508.17637"
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {
        "ropo_rotation": "angle",
        "ropo_reflections": "direction",
        "ropo_magnitude": "magnitude",
    }
    changes_base: ClassVar[bool] = False

    granularity: Literal["givens", "givens+householder", "pairs"] = "givens"
    """What the rotation is made of."""
    magnitude: bool = True
    """Learn each output's length too; false = rotation alone."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules change: all-linear (without the output head), a list of names, or one regular expression that
    matches whole dotted names. A convolution's channels turn, alike at each place of its kernel."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``.

        Raises:
            ModelError: a target or layer that the model does not have.
        """
        from grainline.adapters.ropo_torch import RopoConfig

        return RopoConfig(
            task_type=task_type(model),
            target_modules=named_targets(model, self.targets, self.layers),
            granularity=self.granularity,
            magnitude=self.magnitude,
        )
