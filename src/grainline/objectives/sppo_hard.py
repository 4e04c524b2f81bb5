r"""SPPO with hard labels: the chosen answer's log-ratio should become 1 / (2 beta), the rejected one's the opposite.

Wu et al. 2024, arXiv:2405.00675, Eq. 4.7, where the chosen answer wins with probability 1:

.. math:: \ell = \Bigl(h(y_w) - \frac{1}{2\beta}\Bigr)^2 + \Bigl(h(y_l) + \frac{1}{2\beta}\Bigr)^2

with h of dpo (1 / beta is the paper's eta). At policy = reference the loss is 2 (1 / (2 beta))^2. Both log-ratios have
targets of their own, so the chosen answer cannot sink together with the rejected one.

Traps: the paper trains on the model's own samples, with win rates estimated by a ranker and rounds of play; this is
one round, and every win is certain. h is a sum over the answer, so the target is the same number of nats for long
answers and short ones. The loss is in nats squared and its gradient large (about 1 / beta per nat): it wants a smaller
learning rate than dpo. TRL's ``loss_type="sppo_hard"`` is this file, value and gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import contrast, halves, log_ratio, square
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class SPPOHard:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2405.00675"

    beta: float = Field(0.1, gt=0)
    """Each answer is to move 1 / (2 beta) nats from the reference; smaller moves further. 0.1 is TRL's default; its
    documentation gives 0.001 for the paper."""

    @property
    def constant(self) -> float:
        """The loss at policy = reference."""
        return 2 * (0.5 / self.beta) ** 2

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        ratio_B = log_ratio(policy, reference)
        chosen_P, rejected_P = halves(ratio_B)
        target = 0.5 / self.beta
        return contrast("sppo-hard", square(chosen_P, target) + square(rejected_P, -target), self.beta * ratio_B)
