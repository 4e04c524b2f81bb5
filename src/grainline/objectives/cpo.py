r"""Contrastive preference optimisation: DPO with a uniform reference, beside imitation of the chosen answer.

Xu et al. 2024, arXiv:2401.08417:

.. math:: \ell = \mathrm{link}(z) + a\,\mathrm{NLL}(y_w), \qquad z = \beta\,[\log\pi(y_w) - \log\pi(y_l)]

The link is -log sigma(z) (the paper), the hinge max(0, 1 - z) (SLiC's, without a reference), or ipo's square on mean
log-probs, (lbar_w - lbar_l - 1/(2 beta))^2. NLL is sft, a mean over the tokens of the whole step. With ``sft=0`` and
the sigmoid it is the reference-free dpo of D2PO's Eq. 11.

Traps: not "controllable preference optimisation", which shares the initials (preset cdpo-controllable). Sums grow with
length, so a short chosen answer is ahead before anything was learnt, and nothing pulls back. TRL: ``CPOTrainer`` with
``loss_type`` sigmoid, hinge or ipo, value and gradient; ``cpo_alpha`` is ``sft``; its ``alpha`` (AlphaPO's) on these
losses is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from grainline.objectives._parts import contrast, halves, hinge, likelihood, logistic, per_token, square, summed
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class CPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2401.08417"

    beta: float = Field(0.1, gt=0)
    """Scale of the margin, per nat; with link=ipo the margin aimed at is 1 / (2 beta) nats a token. The paper's."""
    link: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """How a margin becomes a loss; ipo reads means over tokens, the others sums, as in TRL."""
    sft: float = Field(1.0, ge=0)
    """Weight of the likelihood term; TRL's cpo_alpha, with its default. 0 = the contrast alone."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs believed to be labelled the wrong way round, in [0, 0.5); read by link=sigmoid alone."""

    @model_validator(mode="after")
    def _smoothing_is_read(self) -> CPO:
        if self.label_smoothing and self.link != "sigmoid":
            raise ValueError("label_smoothing is read with link=sigmoid only")
        return self

    def __call__(self, policy: LogProbs, reference: None, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        logprob_B = per_token(summed(policy), policy) if self.link == "ipo" else summed(policy)
        chosen_P, rejected_P = halves(self.beta * logprob_B)
        loss_P = self._linked(chosen_P - rejected_P)
        return contrast("cpo", loss_P, self.beta * logprob_B, sft=likelihood(policy, batch, self.sft))

    def _linked(self, margin_P: Tensor) -> Tensor:
        if self.link == "ipo":
            return square(margin_P / self.beta, 0.5 / self.beta)
        return hinge(margin_P) if self.link == "hinge" else logistic(margin_P, self.label_smoothing)
