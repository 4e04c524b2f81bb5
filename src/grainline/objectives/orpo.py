r"""ORPO: imitate the chosen answer and make its odds better than the rejected one's; no reference.

Hong et al. 2024, arXiv:2403.07691, Eqs. 6 and 7:

.. math:: \ell = \mathrm{NLL}(y_w) - \beta\,\log\sigma\Bigl(\log\frac{o(y_w)}{o(y_l)}\Bigr), \qquad
          o(y) = \frac{\bar p(y)}{1 - \bar p(y)}, \quad \bar p(y) = e^{\bar\ell(y)}

with the mean log-prob of a token from simpo. NLL is sft, a mean over the tokens of the whole step.

Traps: beta is the paper's lambda, a weight and no pull towards a reference. TRL 1.16 takes the NLL over prompt *and*
answer, here as in sft over the answer alone: the odds terms are equal, the likelihood terms only where the prompt is
one token. At a mean log-prob of 0 the odds are infinite: it is held 1e-7 below, where there is no gradient. The link
is not linear in the weights. Log-odds in the metrics are ``rewards/chosen - rewards/rejected`` divided by beta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import contrast, halves, likelihood, logistic, per_token, summed
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class ORPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2403.07691"

    beta: float = Field(0.1, gt=0)
    """Weight of the odds term beside the likelihood: the paper's lambda, TRL's beta. 0.1 as in both."""

    def __call__(self, policy: LogProbs, reference: None, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        mean_B = per_token(summed(policy), policy).clamp(max=-1e-7)
        odds_B = mean_B - (-mean_B.expm1()).log()
        chosen_P, rejected_P = halves(odds_B)
        loss_P = self.beta * logistic(chosen_P - rejected_P)
        return contrast("orpo", loss_P, self.beta * odds_B, sft=likelihood(policy, batch))
