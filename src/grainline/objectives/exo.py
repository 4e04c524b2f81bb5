r"""EXO for pairs: the policy's own preference between both answers should become the labels', by the reverse KL.

Ji et al. 2024, arXiv:2402.00856, Eq. 16, for two answers and labels that are right with probability 1 - e:

.. math:: \ell = \sigma(z)\,\log\frac{\sigma(z)}{1 - \varepsilon} + \sigma(-z)\,\log\frac{\sigma(-z)}{\varepsilon},
          \qquad z = \beta\,[h(y_w) - h(y_l)]

with h of dpo. It is the KL divergence with its arguments exchanged against cDPO's cross-entropy: the minimum, at
sigma(z) = 1 - e, is the same and its value is 0. At policy = reference the loss is -log 2 - log(e (1 - e)) / 2, 2.76
at e = 0.001.

Traps: e = 0 would be infinite and is refused. The push fades not only where a pair is right but also where it is badly
wrong: the slope sigma'(z) (z - log((1 - e) / e)) is flat on both sides. TRL's ``loss_type="exo_pair"`` is this file,
value and gradient, if ``label_smoothing`` is set there as well (its default, 0, gives infinity).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import contrast, halves, log_ratio, logistic
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class EXO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2402.00856"

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.1 is the setting that
    TRL's documentation gives for the paper."""
    label_smoothing: float = Field(1e-3, gt=0, lt=0.5)
    """e, the share of wrong labels that the target allows for, in (0, 0.5). 0.001 is what is usual with TRL."""

    @property
    def constant(self) -> float:
        """The loss at policy = reference."""
        return -math.log(2) - 0.5 * math.log(self.label_smoothing * (1 - self.label_smoothing))

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        margin_P, e = chosen_P - rejected_P, self.label_smoothing
        right_P = margin_P.sigmoid() * (-logistic(margin_P) - math.log1p(-e))
        wrong_P = (-margin_P).sigmoid() * (-logistic(-margin_P) - math.log(e))
        return contrast("exo", right_P + wrong_P, reward_B)
