r"""Uncertainty-penalised DPO: pairs that the judges disagree on push less.

Houliston et al. 2024, arXiv:2410.20187. Only the abstract could be read: that a penalty attenuates the loss's gradient
for uncertain samples, for dpo and ipo, by additive and multiplicative schemes. **The schemes below are inferred**; say
which one you used. The default is

.. math:: \ell = e^{-(u_w + u_l) / \tau}\,\bigl(-\log\sigma(\beta\,[h(y_w) - h(y_l)])\bigr)

With h of dpo, u >= 0 from the data, ``D = h(y_w) - h(y_l)``, ``t = 1 / (2 beta)``, ``u_p = u_w +
u_l`` (or one number a pair), ``e = exp(-u_p / tau)``, L(z) = -log sigma(z):

==========  ==========================  ============================  ==================================================
scheme      dpo                         ipo                           idea
==========  ==========================  ============================  ==================================================
loss        e L(beta D)                 e (D - t)^2                   same optimum, smaller steps (default)
margin      L(e beta D)                 (e D - t)^2                   a margin counts less; the optimum is further away
answers     L(beta (e_w h_w - e_l h_l)) (e_w h_w - e_l h_l - t)^2     the same, each answer by its own e = exp(-u / tau)
add         L(beta D + lambda u_p)      (D + lambda u_p / beta - t)^2 an uncertain pair is taken for settled
reward      L(beta D + lambda (u_w -    (D + lambda (u_w - u_l) /     reward minus u in the RL objective, derived: a
            u_l))                       beta - t)^2                   *rejected* answer's u makes the push larger
target      refused                     (D - e t)^2                   an uncertain pair aims at less
==========  ==========================  ============================  ==================================================

u = 0 is dpo, or ipo on sums, in every scheme.

Traps: u has the scale of the reward models; standardise each model's scores over the data before taking their
deviation, and say which deviation (over n or n - 1). *Subtracting* u from the margin, as one might expect of a
penalty, makes uncertain pairs push more. No margin in the metrics reads u.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from grainline.objectives._parts import contrast, halves, log_ratio, logistic, square
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class UPDPO:
    paper: ClassVar[str] = "arXiv:2410.20187"
    least: ClassVar[float] = 0.0
    """Of the columns it reads: a negative uncertainty would make its pair shout, without an end in most schemes."""

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. With form=ipo the margin aimed at is 1 / (2 beta)
    nats an answer. As dpo's."""
    form: Literal["dpo", "ipo"] = "dpo"
    """The loss that is penalised: dpo, or ipo on sums."""
    scheme: Literal["loss", "margin", "answers", "add", "reward", "target"] = "loss"
    """How uncertainty enters, see the table; all are inferred."""
    uncertainty: Literal["answers", "pair"] = "answers"
    """Where it stands in the data: columns chosen_uncertainty and rejected_uncertainty, or one column uncertainty."""
    tau: float = Field(1.0, gt=0)
    """Uncertainty at which a pair counts 1/e, in the data's unit; read by loss, margin, answers and target. Ours."""
    penalty: float = Field(1.0, ge=0)
    """lambda: reward per unit of uncertainty; read by add and reward. Ours."""

    @model_validator(mode="after")
    def _options_are_read(self) -> UPDPO:
        additive = self.scheme in ("add", "reward")
        if self.tau != 1 and additive:
            raise ValueError("tau is read with scheme=loss, margin, answers or target only")
        if self.penalty != 1 and not additive:
            raise ValueError("penalty is read with scheme=add or reward only")
        if self.scheme == "target" and self.form == "dpo":
            raise ValueError("scheme=target needs a target: form=ipo")
        if self.scheme in ("answers", "reward") and self.uncertainty == "pair":
            raise ValueError(f"scheme={self.scheme} reads the uncertainty of each answer: uncertainty=answers")
        return self

    @property
    def needs(self) -> frozenset[str]:
        columns = ["uncertainty"] if self.uncertainty == "pair" else ["chosen_uncertainty", "rejected_uncertainty"]
        return frozenset({"pairs", "reference", *(f"number {column}" for column in columns)})

    @property
    def constant(self) -> float | None:
        """The loss at policy = reference; None where each pair's uncertainty decides it."""
        if self.scheme not in ("margin", "answers"):
            return None
        return math.log(2) if self.form == "dpo" else (0.5 / self.beta) ** 2

    @property
    def exceptions(self) -> dict[str, str]:
        """Of the room's battery."""
        shrinks = self.form == "ipo" and self.scheme in ("add", "reward", "target")
        why = "uncertainty brings the target nearer, so a chosen answer beyond it is pushed back"
        return {"monotony": why} if shrinks else {}

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        chosen_P, rejected_P = halves(log_ratio(policy, reference))
        uncertain_P, also_P = self._uncertainty(batch, chosen_P)
        damped_P = (-(uncertain_P + also_P) / self.tau).exp()
        margin_P = chosen_P - rejected_P
        target: Tensor | float = 0.5 / self.beta
        if self.scheme == "margin":
            margin_P = damped_P * margin_P
        elif self.scheme == "answers":
            margin_P = (-uncertain_P / self.tau).exp() * chosen_P - (-also_P / self.tau).exp() * rejected_P
        elif self.scheme in ("add", "reward"):
            added_P = uncertain_P + also_P if self.scheme == "add" else uncertain_P - also_P
            margin_P = margin_P + self.penalty * added_P / self.beta
        elif self.scheme == "target":
            target = damped_P * target
        loss_P = logistic(self.beta * margin_P) if self.form == "dpo" else square(margin_P, target)
        loss_P = damped_P * loss_P if self.scheme == "loss" else loss_P
        return contrast("updpo", loss_P, self.beta * log_ratio(policy, reference))

    def _uncertainty(self, batch: Pairs, like_P: Tensor) -> tuple[Tensor, Tensor]:
        """Of the chosen and of the rejected answer; of a pair as a whole, all on the chosen side."""
        if self.uncertainty == "pair":
            whole_P = batch.number("uncertainty").to(like_P.dtype)
            return whole_P, whole_P.new_zeros(whole_P.shape)
        chosen_P, rejected_P = (batch.number(f"{side}_uncertainty").to(like_P.dtype) for side in ("chosen", "rejected"))
        return chosen_P, rejected_P
