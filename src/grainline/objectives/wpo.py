r"""WPO: dpo that listens more to pairs which the policy itself might have written.

Zhou et al. 2024, arXiv:2406.11827. Preferences over answers of another model are off-policy; each pair's loss is
weighed by how likely both answers are now, per token:

.. math:: \ell = w(y_w)\,w(y_l)\,\bigl(-\log\sigma(\beta\,[h(y_w) - h(y_l)])\bigr), \qquad
          w(y) = e^{\bar\ell(y)} \text{ (no gradient)}

with h of dpo and the mean log-prob of a token from simpo. This is the weight before the paper's alignment step. The
aligned one, which TRL's ``use_weighting`` has, divides each token's probability by sum_v p(v)^2 of its distribution;
the forward does not supply that sum, so it is not here. Weights move with the policy, so this is an objective and no
supervision. At policy = reference the loss is log 2 times the pair's weight.

Traps: without alignment weights are small (two answers at -1.5 nats a token: 0.05) and uncertain text counts less than
certain text even on-policy. The weight is detached, so the gradient is not the slope of the printed loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import contrast, halves, log_ratio, logistic, per_token, summed
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class WPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2406.11827"
    exceptions: ClassVar[dict[str, str]] = {
        "constant": "log 2 times the pair's weight, which is the policy's own",
        "gradient": "weights are detached, so the gradient is not the slope of the value",
    }

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.01 is what TRL's
    documentation gives for the paper, 0.1 its default."""
    alignment: Literal["none"] = "none"
    """none = weights are plain probabilities; the paper's alignment needs sum_v p(v)^2 of every token."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        likely_P, also_P = halves(per_token(summed(policy), policy).detach().exp())
        losses = contrast("wpo", likely_P * also_P * logistic(chosen_P - rejected_P), reward_B)
        return losses._replace(log={**losses.log, "wpo/weight": likely_P * also_P})
