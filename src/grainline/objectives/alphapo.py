r"""AlphaPO: SimPO with a reward whose shape is chosen: how much an unlikely answer matters more than a likely one.

Gupta et al. 2025, arXiv:2501.03884. The paper's body could not be read; this is its reward as TRL's code has it:

.. math:: r(y) = \beta\,\frac{1 - \bar p(y)^{-\alpha}}{\alpha}, \quad \bar p(y) = e^{\bar\ell(y)}, \qquad
          \ell = -\log\sigma\bigl(r(y_w) - r(y_l) - \gamma\bigr)

with the mean log-prob of a token from simpo. The slope of r by the mean log-prob is ``beta p^-alpha`` (our
derivation): alpha > 0 pushes unlikely answers more, mostly the rejected ones, alpha < 0 likely ones. alpha = 0 is
simpo, the same number; near 0 expm1 keeps all digits.

Traps: alpha means something else in dpo, sft weights and ld-dpo. Exponents are clamped at 80, where nothing more is
learnt. A much copied summary of the paper has a reward with a reference; that is not this method. TRL's documented
example (gamma 0.1 with beta 2.5) probably takes the paper's ratio for the margin (inferred): here
``gamma=0.1,gamma_as=ratio`` is the paper's, by a second-hand table. TRL: ``CPOTrainer(loss_type="alphapo",
alpha=...)``, value and gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import box_cox, contrast, halves, logistic, per_token, summed, target_margin
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class AlphaPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2501.03884"

    alpha: float = 0.25
    """Shape of the reward, without unit: 0 is simpo, positive pushes unlikely answers more. 0.25 for Mistral and
    Llama-3, 0.1 for Gemma-2, by a second-hand copy of the paper's table."""
    beta: float = Field(2.5, gt=0)
    """Scale of the reward, per nat a token: the link's temperature, no pull towards anything. 2.5 by a second-hand
    copy of the paper's table; TRL's default 0.1 is made for sums."""
    gamma: float = 0.25
    """The margin that the chosen answer should be ahead by: 0.25 is 0.1 times beta, the paper's for
    Mistral-7B-Instruct by a second-hand table."""
    gamma_as: Literal["margin", "ratio"] = "margin"
    """margin = gamma itself, in units of reward (TRL's simpo_gamma); ratio = gamma / beta, in nats a token (SimPO's
    scripts and tables)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs believed to be labelled the wrong way round, in [0, 0.5)."""

    def __call__(self, policy: LogProbs, reference: None, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * box_cox(per_token(summed(policy), policy), self.alpha)
        chosen_P, rejected_P = halves(reward_B)
        ahead_P = chosen_P - rejected_P - target_margin(self.gamma, self.gamma_as, self.beta)
        return contrast("alphapo", logistic(ahead_P, self.label_smoothing), reward_B)
