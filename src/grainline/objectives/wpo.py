r"""WPO: dpo that listens more to pairs which the policy itself might have written.

Zhou et al. 2024, arXiv:2406.11827. Preferences over answers of another model are off-policy; each pair's loss is
weighed by how likely both answers are now, per token:

.. math:: \ell = w(y_w)\,w(y_l)\,\bigl(-\log\sigma(\beta\,[h(y_w) - h(y_l)])\bigr), \qquad
          w(y) = \exp\Bigl(\frac{1}{|y|} \sum_t a_t\Bigr) \text{ (no gradient)}

with h of dpo. ``alignment`` says what a token's log-prob is held against before the mean:

=======  =============================  ===============================================================================
sampled  log p(y_t) - log sum_v p(v)^2  the paper's (its Eq. 2) and TRL's ``use_weighting``: a token as likely as what
                                        the policy samples counts 1, in certain text and in uncertain text alike
none     log p(y_t)                     plain probability: uncertain text counts less even where the policy wrote it
=======  =============================  ===============================================================================

Weights move with the policy, so this is an objective and no supervision. At policy = reference the loss is log 2 times
the pair's weight.

Traps: an answer of the policy's favourite tokens weighs more than 1, since they are likelier than its samples. Without
alignment weights are small (two answers at -1.5 nats a token: 0.05). The weight is detached, so the gradient is not the
slope of the printed loss.
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
    paper: ClassVar[str] = "arXiv:2406.11827"
    exceptions: ClassVar[dict[str, str]] = {
        "constant": "log 2 times the pair's weight, which is the policy's own",
        "gradient": "weights are detached, so the gradient is not the slope of the value",
    }

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.01 is what TRL's
    documentation gives for the paper, 0.1 its default."""
    alignment: Literal["sampled", "none"] = "sampled"
    """What a token's probability is divided by in the weight: sum_v p(v)^2 of its distribution (sampled, the paper), or
    nothing (none)."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pairs", "reference"} | ({"concentration"} if self.alignment == "sampled" else set()))

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        likely_P, also_P = halves(per_token(summed(self._aligned(policy)), policy).detach().exp())
        losses = contrast("wpo", likely_P * also_P * logistic(chosen_P - rejected_P), reward_B)
        return losses._replace(log={**losses.log, "wpo/weight": likely_P * also_P})

    def _aligned(self, policy: LogProbs) -> LogProbs:
        """Each token's log-prob above that of what the policy samples there, if so chosen."""
        if self.alignment == "none":
            return policy
        if policy.concentration is None:
            raise ValueError("these log-probs carry no concentration: state the need 'concentration'")
        return policy._replace(token=policy.token - policy.concentration)
