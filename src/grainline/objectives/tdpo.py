r"""Token-level DPO: dpo with a price on how far the policy drifts along each answer, over the whole vocabulary.

Zeng et al. 2024, arXiv:2404.11999 (ICML 2024), as in the authors' release. With h of dpo and
:math:`D(y) = \sum_t w_t\,KL_t(\pi_0 \| \pi)`, each divergence taken over the whole vocabulary:

.. math::
   \ell_1 = -\log\sigma\bigl(\beta\,[h(y_w) - h(y_l)] - \beta\,[D(y_l) - D(y_w)]\bigr)

   \ell_2 = -\log\sigma\bigl(\beta\,[h(y_w) - h(y_l)] - \beta\alpha\,[D(y_l) - \mathrm{sg}\,D(y_w)]\bigr)

Version 2 stops the gradient (sg) through the chosen answer's divergence, so that only the rejected answer's pays; with
alpha = 1 its value is version 1's and its gradient is not. At policy = reference every D is 0 and the loss is log 2.

Rewards and margin in the log are what the loss contrasts: beta (h + alpha D), alpha = 1 in version 1. The release logs
beta (h + D) in both versions.

Traps: D is a sum and grows with the answer's length, as h does; rewards contain the divergence, so do not compare them
with dpo's; the release's command called TDPO2 runs version 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from grainline.objectives._parts import halves, log_ratio, logistic, sequence_kl
from grainline.types import Losses, Term, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Pairs


@spec
class TDPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "kl"})
    paper: ClassVar[str] = "arXiv:2404.11999"
    constant: ClassVar[float] = 0.6931471805599453  # log 2, the loss at policy = reference

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.1 is the release's."""
    version: Literal[2, 1] = 2
    """2 = TDPO2, the paper's better one: weighs the divergences by alpha, and only the rejected answer's has a
    gradient; 1 = TDPO1."""
    alpha: float = Field(0.5, ge=0)
    """Weight of the divergences in version 2; 0 is dpo. 0.5 is the release's."""

    @property
    def exceptions(self) -> dict[str, str]:
        stopped = "the chosen answer's divergence enters the value of version 2 and not its gradient"
        return {"gradient_of_kl": stopped} if self.version == 2 else {}

    @model_validator(mode="after")
    def _alpha_is_read(self) -> TDPO:
        if self.alpha != 0.5 and self.version == 1:
            raise ValueError("alpha is read with version=2 only")
        return self

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        chosen_P, rejected_P = halves(log_ratio(policy, reference))
        chosen_kl_P, rejected_kl_P = halves(sequence_kl(policy))
        log = {"kl/chosen": chosen_kl_P.detach(), "kl/rejected": rejected_kl_P.detach()}
        if self.version == 2:
            chosen_kl_P, rejected_kl_P = self.alpha * chosen_kl_P.detach(), self.alpha * rejected_kl_P
        chosen_P, rejected_P = self.beta * (chosen_P + chosen_kl_P), self.beta * (rejected_P + rejected_kl_P)
        loss_P = logistic(chosen_P - rejected_P)
        log |= {"rewards/chosen": chosen_P.detach(), "rewards/rejected": rejected_P.detach()}
        return Losses({"tdpo": Term(loss_P, loss_P.new_ones(loss_P.shape))}, (chosen_P - rejected_P).detach(), log)
