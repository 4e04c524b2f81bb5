r"""Noise contrastive alignment for pairs: the chosen answer's own likelihood should rise, not only its lead.

Chen et al. 2024, arXiv:2402.05369, with two answers, of which the first is the better:

.. math:: \ell = -\log\sigma(r_w) - \tfrac12\log\sigma(-r_w) - \tfrac12\log\sigma(-r_l), \qquad r = \beta\,h(y)

with h of dpo. It looks at absolute rewards: the chosen one is drawn towards sigma(r_w) = 2/3, that is r_w = log 2, and
stays there; the rejected one is pushed down without end. At policy = reference the loss is 2 log 2.

Traps: weights act on r before the link, so halved weights halve r, not the loss. Once r_w is above log 2 the chosen
answer is pushed down. TRL's ``loss_type="nca_pair"`` is this file, value and gradient.
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
class NCA:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2402.05369"
    constant: ClassVar[float] = 1.3862943611198906  # 2 log 2

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.1 is TRL's default; its
    documentation gives 0.01 for the paper."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        loss_P = logistic(chosen_P) + 0.5 * logistic(-chosen_P) + 0.5 * logistic(-rejected_P)
        return contrast("nca", loss_P, reward_B)
