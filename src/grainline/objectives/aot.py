r"""AOT: not each chosen answer must beat its rejected one, but the chosen answers as a distribution the rejected ones.

Melnyk et al. 2024, arXiv:2406.05882, as in TRL. Two sets of numbers are sorted and compared rank by rank, which is the
cheapest way to carry one distribution over into the other; with d the differences:

.. math:: \ell = -(1 - e)\log\sigma(\beta d) - e\log\sigma(-\beta d)

   \text{paired: } d = \mathrm{sort}_i[\log\pi(y_w) - \log\pi(y_l)] - \mathrm{sort}_i[\log\pi_0(y_w) - \log\pi_0(y_l)]

   \text{unpaired: } d = \mathrm{sort}_i\,h(y_w) - \mathrm{sort}_i\,h(y_l)

The sets are those of the whole optimizer step over all processes (TRL's are a device's batch), so ``batch_size`` is
part of the method. A row of weight 2 stands in them twice. The loss at a rank is booked on the pair whose first number
has that rank. At policy = reference it is log 2.

Traps: ``batch_size`` is part of the method (with one pair a step both variants are dpo); ``paired`` compares the k-th
largest margin under the policy with the k-th largest under the reference, whichever pairs these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import halves, log_ratio, logistic, summed
from grainline.types import Losses, Term, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Pairs


@spec
class AOT:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2406.05882"
    constant: ClassVar[float] = 0.6931471805599453  # log 2, the loss at policy = reference
    coupled: ClassVar[bool] = True
    exceptions: ClassVar[dict[str, str]] = {
        "independence": "rows are compared by their rank among all rows of the step"
    }

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. The paper's experiments use 0.01."""
    variant: Literal["paired", "unpaired"] = "paired"
    """paired = margins under the policy against margins under the reference; unpaired = chosen against rejected."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs believed to be labelled the wrong way round, in [0, 0.5)."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        h_P, g_P = halves(log_ratio(policy, reference))
        margin_P = (self.beta * (h_P - g_P)).detach()
        log = {"rewards/chosen": self.beta * h_P.detach(), "rewards/rejected": self.beta * g_P.detach()}
        if self.variant == "paired":
            (chosen_P, rejected_P), (before_P, also_P) = halves(summed(policy)), halves(summed(reference).detach())
            h_P, g_P = chosen_P - rejected_P, before_P - also_P
        left_S, right_S, share_S = couple(h_P.detach(), g_P.detach(), batch.weight)
        loss_S = logistic(self.beta * (h_P[left_S] - g_P[right_S]), self.label_smoothing)
        mean_P = loss_S.new_zeros(h_P.shape).index_add(0, left_S, share_S.to(loss_S) * loss_S)
        return Losses({"aot": Term(mean_P, mean_P.new_ones(mean_P.shape))}, margin_P, log)


def couple(first_P: Tensor, second_P: Tensor, weight_P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of the first and of the second numbers stand at the same rank, for which share of the first one's weight.

    Both are laid out in order, each as wide as its weight; a stretch that lies in one of each is one piece. With equal
    weights these are the pairs of equal rank, with share 1 (and pieces of no width).
    """
    import torch

    weight_P = weight_P.double()
    left_P, right_P = first_P.argsort(stable=True), second_P.argsort(stable=True)
    ends_P, other_P = weight_P[left_P].cumsum(0), weight_P[right_P].cumsum(0)
    cuts_S = torch.cat([ends_P, other_P]).sort().values
    width_S = cuts_S.diff(prepend=cuts_S.new_zeros(1))
    middle_S = cuts_S - width_S / 2
    last = len(first_P) - 1
    left_S = left_P[torch.searchsorted(ends_P, middle_S).clamp(max=last)]
    right_S = right_P[torch.searchsorted(other_P, middle_S).clamp(max=last)]
    return left_S, right_S, width_S / weight_P[left_S].clamp(min=1e-30)
