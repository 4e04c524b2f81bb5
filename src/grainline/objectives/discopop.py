r"""DiscoPOP: a loss that a language model found; logistic where a pair is wrong, exponential where it is right.

Lu et al. 2024, arXiv:2406.08414, Eq. 5 (the log-ratio modulated loss):

.. math:: \ell = \bigl(1 - m\bigr)\bigl(-\log\sigma(z)\bigr) + m\,e^{-z}, \qquad
          m = \sigma(z / \tau), \quad z = \beta\,[h(y_w) - h(y_l)]

with h of dpo. At policy = reference the loss is (log 2 + 1) / 2 = 0.847.

Traps: it is not convex. Coming from the wrong side the loss rises towards a bump near z = 0, so a pair that is
slightly wrong is pushed to be more wrong; this is in the paper, and a part of the idea (pairs that look mislabelled
are left where they are). Do not read progress off its value. ``m e^-z`` is computed as one exponential, so it stays
finite where TRL's overflows (z below -80 in float32). TRL's ``loss_type="discopop"`` is this file, value and gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import contrast, halves, log_ratio, logistic
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class DiscoPOP:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2406.08414"
    constant: ClassVar[float] = 0.8465735902799727  # (log 2 + 1) / 2
    exceptions: ClassVar[dict[str, str]] = {
        "monotony": "the discovered loss is not convex: a slightly wrong pair is pushed to be more wrong"
    }

    beta: float = Field(0.05, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.05 is what TRL's documentation gives for the paper
    (TRL's own default is 0.1)."""
    tau: float = Field(0.05, gt=0, le=1)
    """Width, in units of the margin z, over which the logistic loss turns into the exponential one. The paper's, and
    TRL's discopop_tau."""

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        reward_B = self.beta * log_ratio(policy, reference)
        chosen_P, rejected_P = halves(reward_B)
        margin_P = chosen_P - rejected_P
        share_P = margin_P / self.tau
        exponential_P = (-logistic(share_P) - margin_P).exp()
        return contrast("discopop", (-share_P).sigmoid() * logistic(margin_P) + exponential_P, reward_B)
