r"""BCO: a classifier of single answers, whose logit is the implied reward above the mean of all rewards so far.

Jung et al. 2024, arXiv:2404.04656. With :math:`r = \beta h(y)`, h of dpo:

.. math:: \ell(y) = \begin{cases} -\log\sigma(r - \delta) & y \text{ desirable} \\
                                  -\log\sigma(\delta - r) & \text{otherwise} \end{cases}

delta is the running mean of the rewards of all rows that were ever seen, those of the present step included (as in
TRL's trainer of this name): a number that a run carries from step to step, saves and resumes. It carries no gradient.
Pairs are two rows. In a sum with an objective for pairs, such as ``0.8*dpo + 0.4*bco``, a pair counts their mean.

``shift=none`` leaves delta at 0: TRL's DPO ``loss_type="bco_pair"``, which adds the losses of a pair where this takes
the mean over its rows, and so is twice as large. The paper's correction by a density ratio, for answers whose prompts
differ between the classes, is not here. At policy = reference the loss is log 2.

Traps: delta remembers every row alike, so late in a long run it moves slowly; a sum in TRL with ``0.2*bco_pair`` is
``0.4*bco:shift=none`` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import desirable, halves, log_ratio, logistic, pair_sum
from grainline.types import Losses, Pairs, Rows, Term, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs


@spec
class BCO:
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "reference"})
    paper: ClassVar[str] = "arXiv:2404.04656"
    constant: ClassVar[float] = 0.6931471805599453  # log 2, the loss at policy = reference

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. The paper uses 0.01."""
    shift: Literal["running", "none"] = "running"
    """running = rewards are held against the mean of all rewards so far; none = against 0."""

    @property
    def coupled(self) -> bool:
        return self.shift == "running"

    @property
    def state(self) -> dict[str, float]:
        """The mean of all rewards so far, and the weight of the rows that it is of."""
        return {"delta": 0.0, "delta_rows": 0.0} if self.coupled else {}

    @property
    def exceptions(self) -> dict[str, str]:
        return {"independence": "delta is a mean over all rows of the step"} if self.coupled else {}

    def __call__(
        self, policy: LogProbs, reference: LogProbs, batch: Rows | Pairs, heads: Mapping[str, Tensor]
    ) -> Losses:
        label_B = desirable(batch)
        reward_B = (self.beta * log_ratio(policy, reference))[: len(label_B)]
        delta, state = reward_B.new_zeros(()), {}
        if self.coupled:
            weight_B = batch.weight if isinstance(batch, Rows) else batch.weight.repeat(2)
            state = _mean_so_far(reward_B.detach(), weight_B, heads)
            delta = state["delta"].to(reward_B)
        loss_B = logistic((reward_B - delta) * (label_B.to(reward_B.dtype) * 2 - 1))
        log, margin = {"rewards/answer": reward_B.detach()}, None
        if isinstance(batch, Pairs):
            chosen_P, rejected_P = halves(reward_B.detach())
            margin, log = chosen_P - rejected_P, {"rewards/chosen": chosen_P, "rewards/rejected": rejected_P}
            loss_B = pair_sum(loss_B) / 2
        return Losses({"bco": Term(loss_B, loss_B.new_ones(loss_B.shape))}, margin, log, state)


def _mean_so_far(reward_B: Tensor, weight_B: Tensor, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """delta with the present rows, in float64: it is a mean over a whole run."""
    reward_B, weight_B = reward_B.double(), weight_B.double()
    before, rows = (state.get(name, reward_B.new_zeros(())).to(reward_B) for name in ("delta", "delta_rows"))
    after = rows + weight_B.sum()
    return {"delta": (rows * before + (weight_B * reward_B).sum()) / after.clamp(min=1e-30), "delta_rows": after}
