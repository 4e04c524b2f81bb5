r"""SimPO: the chosen answer should be likelier per token, by a margin; no reference.

Meng et al. 2024, arXiv:2405.14734, Eq. 6:

.. math:: \ell = -\log\sigma\bigl(\beta\,[\bar\ell(y_w) - \bar\ell(y_l)] - \gamma\bigr), \qquad
          \bar\ell(y) = \frac{\sum_t w_t \log\pi(y_t)}{\sum_t |w_t|}

the mean log-prob of a token. No reference is read, which spares its forward.

Traps: nothing holds the policy near where it began, so learning rate and epochs do (the paper: 3e-7 to 1e-6 in full
fine-tuning, one epoch). Gamma is given in two units, see ``gamma_as``: SimPO's tables list gamma / beta. The loss
before training is no constant, it is the model's. For a likelihood term beside it write ``simpo + 1.0*sft``, TRL's
``cpo_alpha=1.0`` (its default there!). TRL: ``CPOTrainer(loss_type="simpo", cpo_alpha=0)``, value and gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import contrast, halves, logistic, per_token, summed, target_margin
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class SimPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2405.14734"

    beta: float = Field(2.5, gt=0)
    """Scale of the reward, per nat a token: the link's temperature, no pull towards anything. 2.5 as in SimPO's scripts
    for Llama-3-8B-Instruct; TRL's default 0.1 is made for sums."""
    gamma: float = 1.375
    """The margin that the chosen answer should be ahead by: 1.375 is 0.55 times beta, as in SimPO's scripts for
    Llama-3-8B-Instruct (TRL's default is 0.5)."""
    gamma_as: Literal["margin", "ratio"] = "margin"
    """margin = gamma itself, in units of reward (TRL's simpo_gamma); ratio = gamma / beta, in nats a token (SimPO's
    scripts and tables)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs believed to be labelled the wrong way round, in [0, 0.5)."""

    def __call__(self, policy: LogProbs, reference: None, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * per_token(summed(policy), policy)
        chosen_P, rejected_P = halves(reward_B)
        ahead_P = chosen_P - rejected_P - target_margin(self.gamma, self.gamma_as, self.beta)
        return contrast("simpo", logistic(ahead_P, self.label_smoothing), reward_B)
