r"""Mo-SARA: the singular vectors stay, several sets of singular values are trained, and each token mixes them.

Gu et al. 2024, arXiv:2408.03290, the extreme variant of SARA:

.. math:: y = W x + v \odot U_k\,\mathrm{diag}\Big(\sum_e g_e(x)\,\lambda_e\Big) V_k^T x, \qquad
          g = \mathrm{softmax}(W_2 W_1 V_k^T x)

U_k and V_k are the leading singular vectors of W, frozen and stored with the adapter; the rank k is SARA's, by a share
of the sum of singular values. Trained are E sets lambda_e, one scale v per output, and a router of rank 1: E k + out +
k + E parameters. All experts share U_k and V_k, so mixing the values is mixing the outputs, at the cost of one expert.

There is no official code, and the method section could not be read: that v multiplies the change, and that the router
reads V_k^T x, is inferred. v = 0 at the start, so that a fresh adapter changes nothing; lambda and the router start
small and random. A token's gate depends on that token alone, so prompts may be shared between answers. No single weight
stands for a change that depends on x: it cannot be merged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from grainline.adapters._parts import named_targets, task_type
from grainline.types import spec

if TYPE_CHECKING:
    from torch import nn


@spec
class MoSARA:
    paper: ClassVar[str] = "arXiv:2408.03290"
    layouts: ClassVar[frozenset[str]] = frozenset({"tree", "packed", "padded"})
    roles: ClassVar[dict[str, str]] = {
        "mo_sara_lambda": "spectrum",
        "mo_sara_v": "magnitude",
        "mo_sara_router": "router",
    }
    changes_base: ClassVar[bool] = False
    exceptions: ClassVar[dict[str, str]] = {
        "parameters as stated": "ranks follow from the weights; a plan takes those of random matrices, which are larger"
    }

    share: float = Field(0.1, gt=0, le=1)
    """Share of the sum of singular values that the rank must reach, in (0, 1]."""
    experts: int = Field(5, ge=1)
    """Sets of singular values that the router mixes."""
    max_rank: Annotated[int, Field(ge=1)] | None = None
    """No matrix gets more than this; null = no limit."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules change: all-linear (without the output head), a list of names, or one regular expression that
    matches whole dotted names."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that change, counted from 0; null = all."""

    def config(self, model: nn.Module) -> Any:
        """PEFT's configuration for ``model``: the ranks of its targets are found here.

        Without weights (``grainline plan``) the ranks are those of random matrices, which are larger than real ones.

        Raises:
            ModelError: a target or layer that the model does not have.
        """
        from grainline.adapters._spectral import ranks
        from grainline.adapters.mo_sara_torch import MoSaraConfig

        names = named_targets(model, self.targets, self.layers)
        return MoSaraConfig(
            task_type=task_type(model),
            target_modules=names,
            ranks=ranks(model, names, self.share, most=self.max_rank),
            experts=self.experts,
        )
