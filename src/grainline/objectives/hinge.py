r"""Hinge loss (SLiC, RSO): the chosen answer should be ahead by a margin of one, and then be left alone.

Liu et al. 2023 (RSO), arXiv:2309.06657, the hinge of Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425, on log-ratios:

.. math:: \ell = \max\bigl(0,\ 1 - \beta\,[h(y_w) - h(y_l)]\bigr)

with h of dpo. At policy = reference the loss is 1. Every pair below the margin pushes with the same force beta, beyond
1 / beta nats it pushes no more.

Traps: SLiC itself has no reference (``cpo:link=hinge``), and takes its hinge on sequences that were sampled and
ranked. TRL's ``loss_type="hinge"`` is this file, value and gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import contrast, halves, hinge, log_ratio
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class Hinge:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2309.06657"
    constant: ClassVar[float] = 1.0

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. A pair is left alone at
    1 / beta nats. 0.1 is TRL's default."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        return contrast("hinge", hinge(chosen_P - rejected_P), reward_B)
