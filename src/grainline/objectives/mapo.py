r"""MaPO: how much each token counts is read from the reference's activations; nothing is learnt for it.

Christopoulou et al. 2024, arXiv:2410.05102, the variant of SparsePO without parameters, as in the authors' release:

.. math:: \ell = -\log\sigma\bigl(\beta\,[u - \delta]\bigr), \qquad
   u = \sum_{t \in y_w} m_t \rho_t - \sum_{t \in y_l} m_t \rho_t, \quad
   \delta = \sum_{t \in y_l} m_t KL_t - \sum_{t \in y_w} m_t KL_t

For each activation of the reference (MLP, attention, residual stream, logits) its mean over features is a number a
token, rescaled to [0, 1] over the tokens of the answer. These are averaged within each of the four families, and the
families are averaged: :math:`m_t`. The release standardises before it rescales, which changes nothing but rounding (it
rounds to float16 on the way).

Read at the position that predicts the token, like SparsePO's masks [inferred]. Rotary queries and keys, which the
release reads too, are not: they exist inside the attention function only. Where an activation is the same at all tokens
of an answer, or the answer is one token, there is nothing to rescale and tokens count 1 (ours; the release divides by
zero). Margin and rewards in the log are dpo's, without masks.

Traps: the mask is hardly ever sparse, since only the smallest token of an answer can be 0; an architecture whose layers
are laid out in an unknown way is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import halves, log_ratio, logistic, masked_margin, pair_sum, sequence_kl
from grainline.types import Losses, Term, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Pairs


@spec
class MaPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "kl", "reference_activations"})
    paper: ClassVar[str] = "arXiv:2410.05102"
    constant: ClassVar[float] = 0.6931471805599453  # log 2, the loss at policy = reference

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. The release uses 0.1 for dialogue, 0.8 otherwise."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        if reference.activations is None:
            raise ValueError("the reference carries no activations: state the need 'reference_activations'")
        mask_BT = token_mask(reference.activations, reference.mask).to(policy.token.dtype)
        loss_P = logistic(self.beta * masked_margin(policy, reference, mask_BT, mask_BT))
        chosen_P, rejected_P = halves(self.beta * log_ratio(policy, reference).detach())
        log = {"rewards/chosen": chosen_P, "rewards/rejected": rejected_P}
        log |= dict(zip(("kl/chosen", "kl/rejected"), halves(sequence_kl(policy).detach()), strict=True))
        log["masks/mean"] = pair_sum((mask_BT * policy.mask).sum(-1)) / pair_sum(policy.mask.sum(-1))
        return Losses({"mapo": Term(loss_P, loss_P.new_ones(loss_P.shape))}, chosen_P - rejected_P, log)


def token_mask(activations_BTFK: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, T) in [0, 1]: each activation rescaled over its answer's tokens, averaged in families, then over them."""
    inside = mask_BT[:, :, None, None]
    low = activations_BTFK.masked_fill(~inside, float("inf")).amin(1, keepdim=True)
    high = activations_BTFK.masked_fill(~inside, -float("inf")).amax(1, keepdim=True)
    span = high - low
    scaled = ((activations_BTFK - low) / span.masked_fill(span == 0, 1)).masked_fill(span == 0, 1)
    return scaled.nanmean(-1).nanmean(-1).masked_fill(~mask_BT, 0)
