r"""Budget-controlled regularisation: the chosen answer may lose a little on the reference, and more costs.

Chen et al. 2024, arXiv:2411.05875. The paper's body could not be read: what follows is inferred from its abstract.

.. math:: \ell = \ell_{dpo} + \lambda \max\Bigl(0,\ \frac{\log\pi_0(y_w) - \log\pi(y_w)}{n} - \delta\Bigr)

with n = 1, or the answer's length. Preference losses converge better if the chosen answer may fall slightly; a
likelihood term (``dpo + 0.1*sft``) forbids any fall, a budget of delta nats allows it. ``base=none`` is the second
term alone, for any other base: ``simpo + 1.0*bcr:base=none`` (a reference is then read for it). At policy = reference
nothing has been spent: the loss is log 2, dpo's.

Traps: formula, budget and weight are ours. The penalty's slope is lambda or nothing, while dpo's is at most beta: with
lambda well below beta the floor gives way, above it it holds. ``base=none`` without another objective learns nothing.
DPO-Positive has the penalty inside the link, which differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import contrast, halves, log_ratio, logistic, per_token
from grainline.types import Term, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class BCR:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2411.05875"

    base: Literal["dpo", "none"] = "dpo"
    """What is regularised: dpo, or whatever this is added to (none)."""
    beta: float = Field(0.1, gt=0)
    """Pull towards the reference of the base loss, per nat; smaller moves further. As dpo's."""
    budget: float = Field(1.0, ge=0)
    """delta: nats that the chosen answer may lose (an answer, or a token). Ours; the paper's was not read."""
    weight: float = Field(1.0, ge=0)
    """lambda: cost of each nat beyond the budget. Ours; the paper's was not read."""
    normalise: Literal["sum", "mean"] = "sum"
    """Whether the loss of likelihood is counted over the answer (sum) or per token (mean)."""

    @property
    def constant(self) -> float:
        """The loss at policy = reference, where the budget is whole."""
        return math.log(2) if self.base == "dpo" else 0.0

    @property
    def exceptions(self) -> dict[str, str]:
        """Of the room's battery."""
        return {} if self.base == "dpo" else {"monotony": "within the budget the penalty alone pushes nowhere"}

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        ratio_B = log_ratio(policy, reference)
        chosen_P, rejected_P = halves(self.beta * ratio_B)
        spent_P, _ = halves(per_token(-ratio_B, policy) if self.normalise == "mean" else -ratio_B)
        over_P = (spent_P - self.budget).relu()
        penalty = Term(over_P, over_P.new_ones(over_P.shape), self.weight)
        losses = contrast("dpo", logistic(chosen_P - rejected_P), self.beta * ratio_B, bcr=penalty)
        terms = losses.terms if self.base == "dpo" else {"bcr": penalty}
        log = {"budget/spent": spent_P.detach(), "budget/exceeded": (over_P > 0).to(over_P.dtype)}
        return losses._replace(terms=terms, log={**losses.log, **log})
