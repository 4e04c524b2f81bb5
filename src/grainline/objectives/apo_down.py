r"""APO-down: both answers down, the rejected one further. For data worse than the model.

D'Oosterlinck et al. 2024 (anchored preference optimisation), arXiv:2408.06266, Eq. 8, plus 1 as in TRL:

.. math:: \ell = \sigma(r_w) + 1 - \sigma(r_w - r_l), \qquad r = \beta\,h(y)

with h of dpo. The first term draws the chosen answer down, the second keeps it ahead of the rejected one. At policy =
reference the loss is 1, and the slope on the chosen answer is exactly 0: it begins to move when the rejected one has.

Traps: ``logps/chosen`` falls, and is meant to. On data whose chosen answers are good it unlearns them: take
``apo-zero``. Both terms are bounded: pushes vanish some 1 / beta nats away. TRL's ``loss_type="apo_down"`` is this
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import contrast, halves, log_ratio
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class APODown:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2408.06266"
    constant: ClassVar[float] = 1.0
    exceptions: ClassVar[dict[str, str]] = {"monotony": "it lowers the chosen answer too, that is its purpose"}

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. Pushes fade some 1 / beta
    nats away. 0.1 is what TRL's documentation gives for the paper."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        return contrast("apo-down", chosen_P.sigmoid() + (rejected_P - chosen_P).sigmoid(), reward_B)
