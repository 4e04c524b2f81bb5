r"""Direct preference optimisation: the chosen answer should gain more on the reference than the rejected one.

Rafailov et al. 2023, arXiv:2305.18290, Eq. 7:

.. math:: \ell = -\log\sigma\bigl(\beta\,[h(y_w) - h(y_l)]\bigr), \qquad
          h(y) = \sum_t w_t\,[\log\pi(y_t \mid x, y_{<t}) - \log\pi_0(y_t \mid x, y_{<t})]

``w_t`` is the token's weight from the supervision room, 1 for whole answers. Two parts can be exchanged: the link, for
labels that are sometimes wrong (cDPO, Mitchell 2023), and the divergence that ties policy to reference (f-DPO, Wang et
al. 2023, arXiv:2309.16240), which replaces h by f'(e^h) - f'(1).

``normalise=mean`` divides each answer's score by its tokens.

At policy = reference the loss is log 2 for every option.

Traps: the loss sees a difference only, so both answers often become less likely together. h is a sum, so long answers
have more room to move, unless ``normalise=mean``. TRL calls it ``loss_type="sigmoid"``; there TRL 1.16
ignores ``label_smoothing``, this one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from grainline.objectives._parts import contrast, divergence_score, halves, log_ratio, logistic, per_token
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class DPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2305.18290"
    constant: ClassVar[float] = 0.6931471805599453  # log 2, the loss at policy = reference

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.1 is the paper's value for dialogue."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs believed to be labelled the wrong way round, in [0, 0.5)."""
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "reverse_kl"
    """Divergence between policy and reference; reverse_kl is DPO itself."""
    alpha: float = 0.5
    """Shape of the alpha divergence: 1 = reverse_kl, 0 = forward_kl, as in TRL; read by no other divergence."""
    normalise: Literal["sum", "mean"] = "sum"
    """h over the whole answer (sum, the paper), or divided by its tokens (mean, TRL's sigmoid_norm: h in nats a token,
    so that beta must be some hundred times larger)."""

    @model_validator(mode="after")
    def _alpha_is_read(self) -> DPO:
        if self.alpha != 0.5 and self.divergence != "alpha":
            raise ValueError("alpha is read with divergence=alpha only")
        return self

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        score_B = self.beta * divergence_score(log_ratio(policy, reference), self.divergence, self.alpha)
        reward_B = per_token(score_B, policy) if self.normalise == "mean" else score_B
        chosen_P, rejected_P = halves(reward_B)
        return contrast("dpo", logistic(chosen_P - rejected_P, self.label_smoothing), reward_B)
