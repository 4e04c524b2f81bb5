r"""APO-zero: the chosen answer up, the rejected one down, each on its own. For data better than the model.

D'Oosterlinck et al. 2024 (anchored preference optimisation), arXiv:2408.06266, Eq. 7, plus 1 as in TRL:

.. math:: \ell = 1 - \sigma(r_w) + \sigma(r_l), \qquad r = \beta\,h(y)

with h of dpo. The slope on the chosen answer is -sigma'(r_w), on the rejected one sigma'(r_l), sigma' = sigma (1 -
sigma): neither depends on the other answer, which is what "anchored" means. At policy = reference the loss is 1.
Traps: both terms are bounded, so the push vanishes on *both* sides once an answer is some 1 / beta nats away: a badly
wrong pair is given up. Where the chosen answers are worse than what the model would say, take ``apo-down``. Not
"accelerated preference optimisation", which shares the initials. TRL's ``loss_type="apo_zero"`` is this file.
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
class APOZero:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2408.06266"
    constant: ClassVar[float] = 1.0

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. Pushes fade some 1 / beta
    nats away. 0.1 is what TRL's documentation gives for the paper."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        return contrast("apo-zero", (-chosen_P).sigmoid() + rejected_P.sigmoid(), reward_B)
