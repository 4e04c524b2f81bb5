r"""SparsePO: learned masks say how much each token's preference, and each token's drift, counts; many count nothing.

Christopoulou et al. 2024, arXiv:2410.05102 (Findings of EMNLP 2025), as in the authors' release. With the token
log-ratio :math:`\rho_t`, the divergence :math:`KL_t(\pi_0 \| \pi)` over the whole vocabulary, and masks
:math:`m^u_t, m^d_t \ge 0`:

.. math::
   \ell = -\log\sigma\Bigl(\beta\,\bigl[u - \delta\bigr]\Bigr) + \lambda_u \|m^u\|_1 + \lambda_d \|m^d\|_1, \qquad
   u = \sum_{t \in y_w} m^u_t \rho_t - \sum_{t \in y_l} m^u_t \rho_t, \quad
   \delta = \sum_{t \in y_l} m^d_t KL_t - \sum_{t \in y_w} m^d_t KL_t

The norms are sums over the tokens of both answers. Gradients reach policy and masks through both terms. Masks look at
the reference's hidden states only and are thrown away after training. ``masks=common`` is one mask for both places,
each norm then halved. With all masks 1 the loss is TDPO1's plus the norms.

Ours: the mixing weights of ``simple_all`` start as absolute values of the release's draw, since a mixer that starts
with negative weights alone gives a mask of 0 everywhere, which no gradient ever leaves; and the norms count a token as
often as its weight says. Margin and rewards in the log are dpo's, without masks: they say what the trained model
prefers, which has no masks.

Traps: a price lambda that is too high kills a mask for good, and with it the loss (watch ``masks/reward/zeros``); masks
look at the position that predicts a token, so its own identity reaches its mask through later tokens only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import halves, log_ratio, logistic, masked_margin, pair_sum, sequence_kl
from grainline.types import Losses, Term, spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from grainline.types import Dims, LogProbs, Pairs


@spec
class SparsePO:
    paper: ClassVar[str] = "arXiv:2410.05102"

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. The release uses 0.1 for dialogue, 0.8 otherwise."""
    masks: Literal["common", "independent"] = "common"
    """common = one mask for preference and drift; independent = one for each."""
    module: Literal["simple_all", "simple_last"] = "simple_all"
    """What a mask is read from: simple_all = the hidden states of all layers, mixed; simple_last = the last one's."""
    masked: Literal["both", "reward", "kl"] = "both"
    """Where masks apply; elsewhere every token counts 1."""
    l1_reward: float = Field(0.001, ge=0)
    """Price of the preference mask, a token; larger is sparser. 0.001 is the release's for dialogue."""
    l1_kl: float = Field(0.001, ge=0)
    """Price of the drift mask, a token."""

    @property
    def needs(self) -> frozenset[str]:
        states = "reference_layers" if self.module == "simple_all" else "reference_hidden"
        return frozenset({"pairs", "reference", "kl", states})

    @property
    def constant(self) -> float | None:
        """The loss at policy = reference, where masks cost nothing."""
        return None if self.l1_reward or self.l1_kl else math.log(2)

    def heads(self, dims: Dims) -> nn.Module:
        from grainline.objectives.sparsepo_torch import Masks

        names: tuple[str, ...] = ("mask",)
        if self.masks == "independent":  # a mask that nobody reads would be trained by nothing
            names = tuple(f"{place}_mask" for place in ("reward", "kl") if self.masked in ("both", place))
        return Masks(dims, names, all_layers=self.module == "simple_all")

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        ones_BT = policy.mask.to(policy.token.dtype)
        reward_BT, kl_BT = (heads.get("mask", heads.get(name, ones_BT)) for name in ("reward_mask", "kl_mask"))
        price_u, price_d = (self.l1_reward, self.l1_kl) if heads else (0.0, 0.0)
        if self.masks == "common":
            price_u, price_d = price_u / 2, price_d / 2
        if self.masked == "reward":
            kl_BT, price_d = ones_BT, 0.0
        if self.masked == "kl":
            reward_BT, price_u = ones_BT, 0.0
        margin_P = self.beta * masked_margin(policy, reference, reward_BT, kl_BT)
        norm_B = ((price_u * reward_BT + price_d * kl_BT) * policy.weight.abs()).sum(-1)
        loss_P = logistic(margin_P) + pair_sum(norm_B)
        return Losses(
            {"sparsepo": Term(loss_P, loss_P.new_ones(loss_P.shape))},
            *self._said(policy, reference, {"reward": reward_BT, "kl": kl_BT} if heads else {}),
        )

    def _said(
        self, policy: LogProbs, reference: LogProbs, masks: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Margin and log: dpo's rewards, drift, and which share of the tokens a mask silences."""
        rewards, drift = halves(self.beta * log_ratio(policy, reference).detach()), halves(sequence_kl(policy).detach())
        log = {f"rewards/{side}": value for side, value in zip(("chosen", "rejected"), rewards, strict=True)}
        log |= {f"kl/{side}": value for side, value in zip(("chosen", "rejected"), drift, strict=True)}
        tokens_P = pair_sum(policy.mask.sum(-1))
        for name, mask_BT in masks.items():
            inside_BT = mask_BT.detach() * policy.mask
            silent_BT = policy.mask & (inside_BT == 0)
            log[f"masks/{name}/zeros"] = pair_sum(silent_BT.sum(-1).to(mask_BT.dtype)) / tokens_P
            log[f"masks/{name}/mean"] = pair_sum(inside_BT.sum(-1)) / tokens_P
        return rewards[0] - rewards[1], log
