r"""Robust DPO: an unbiased estimate of the DPO loss when a known share of labels is the wrong way round.

Chowdhury et al. 2024, arXiv:2403.00409:

.. math:: \ell = \frac{-(1 - \varepsilon)\log\sigma(z) + \varepsilon\log\sigma(-z)}{1 - 2\varepsilon}, \qquad
          z = \beta\,[h(y_w) - h(y_l)]

with h of dpo. If each label is flipped with probability e, the mean of this loss over flips is DPO's on true labels.
cDPO (``dpo:label_smoothing``) has a plus before the second term and is biased on purpose: it stops at a finite margin,
this one never does. At policy = reference the loss is log 2.

Traps: the loss falls below 0 and has no lower bound, so its value says nothing; the nearer e is to 1/2, the larger the
gradient, up to beta / (1 - 2 e) for a wrong pair. TRL's ``loss_type="robust"`` is this file, value and gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import contrast, halves, log_ratio, logistic
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class Robust:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2403.00409"
    constant: ClassVar[float] = 0.6931471805599453  # log 2

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.1 is the setting that
    TRL's documentation gives for the paper."""
    label_smoothing: float = Field(0.1, ge=0, lt=0.5)
    """Share of pairs labelled the wrong way round, in [0, 0.5); 0 is dpo. 0.1 as TRL's documentation gives for the
    paper (TRL's own default is 0)."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        margin_P, e = chosen_P - rejected_P, self.label_smoothing
        loss_P = ((1 - e) * logistic(margin_P) - e * logistic(-margin_P)) / (1 - 2 * e)
        return contrast("robust", loss_P, reward_B)
