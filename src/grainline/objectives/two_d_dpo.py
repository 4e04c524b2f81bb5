r"""2D-DPO: the best sentences of the chosen answer against the worst of the rejected one.

Li et al. 2024, arXiv:2410.19720 (Findings of NAACL 2025). No code of the authors could be found; formulas are those of
secondary sources. With the segments' scores r (aspects combined by the supervision), :math:`\rho_t = \log\pi(y_t) -
\log\pi_0(y_t)` and :math:`g_k = \sum_{t \in k} \rho_t`:

.. math::
   \ell_{vanilla} = -\log\sigma\Bigl(\beta \sum_k c_k^w g_k^w - \beta \sum_k c_k^l g_k^l\Bigr)

   \ell_{group} = -\sum_{k=1}^{N} \log\sigma\bigl(\beta\, c_{(k)}^w g_{(k)}^w - \beta\, c_{(k)}^l g_{(k)}^l\bigr),
   \qquad N = \min(S_w, S_l)

where (k) runs over the chosen segments from the best down and over the rejected ones from the worst up. The loudness c
of a chosen segment is its score r. Of a rejected one it is, as reproduced, r too: then the worst sentences speak
softest, which contradicts the idea. So the default here is 1 - r (ours), and the literal rule an option.

Traps: the sum over contrasts grows with the number of segments, and the loss with it. Inferred parts: the default
loudness, the mean.

``vanilla`` with loudness 1 everywhere is dpo, and so is ``group`` on answers of one segment. Margin and rewards in the
log are those of whole answers, every token counting 1, so that no score of a held-out row helps to predict it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import by_segment, contrast, halves, log_ratio, logistic, segments
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs

name = "2d-dpo"


@spec
class TwoDDPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "segments"})
    paper: ClassVar[str] = "arXiv:2410.19720"
    exceptions: ClassVar[dict[str, str]] = {
        "repetition": "it reads the scores of segments, not the weights of tokens",
        "silence": "it reads the scores of segments, not the weights of tokens",
    }

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further."""
    mode: Literal["group", "vanilla"] = "group"
    """group = one contrast per pair of segments, best against worst (the paper's final objective); vanilla = one
    contrast per pair of answers."""
    rejected: Literal["inverted", "score"] = "inverted"
    """Loudness of a rejected segment: inverted = 1 - score (ours, scores in 0..1); score = the literal rule."""
    reduction: Literal["sum", "mean"] = "sum"
    """Over the N contrasts of a pair: sum, as in the paper, or mean, so that many segments do not count for more."""

    @property
    def constant(self) -> float | None:
        """The loss at policy = reference; a sum over N contrasts has no constant of its own."""
        return None if self.mode == "group" and self.reduction == "sum" else math.log(2)

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Where scores must lie."""
        return (0.0, 1.0) if self.rejected == "inverted" else None

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        segment_BT, score_BS = segments(policy)
        rule = self._vanilla if self.mode == "vanilla" else self._group
        loss_P = rule(policy, reference, segment_BT, score_BS)
        return contrast("2d-dpo", loss_P, self.beta * log_ratio(policy.whole(), reference.whole()))

    def _loudness(self, score_BS: Tensor) -> Tensor:
        """c of each segment, 0 where an answer has fewer."""
        import torch

        chosen_PS, rejected_PS = halves(score_BS)
        loud_PS = 1 - rejected_PS if self.rejected == "inverted" else rejected_PS
        return torch.cat([chosen_PS, loud_PS]).nan_to_num(nan=0.0)

    def _vanilla(self, policy: LogProbs, reference: LogProbs, segment_BT: Tensor, score_BS: Tensor) -> Tensor:
        loud_BT = self._loudness(score_BS).gather(1, segment_BT.clamp(min=0)) * policy.mask
        value_B = self.beta * log_ratio(policy._replace(weight=loud_BT), reference._replace(weight=loud_BT))
        chosen_P, rejected_P = halves(value_B)
        return logistic(chosen_P - rejected_P)

    def _group(self, policy: LogProbs, reference: LogProbs, segment_BT: Tensor, score_BS: Tensor) -> Tensor:
        import torch

        before_BS = by_segment(reference.token.detach(), segment_BT, score_BS)
        gain_BS = by_segment(policy.token, segment_BT, score_BS) - before_BS
        chosen_PS, rejected_PS = halves(self.beta * self._loudness(score_BS) * gain_BS)
        best_PS, worst_PS = halves(score_BS)
        # Absent segments (NaN) come last on both sides; equal scores keep their order in the text.
        best_PS = best_PS.nan_to_num(nan=-math.inf).argsort(dim=-1, descending=True, stable=True)
        worst_PS = worst_PS.nan_to_num(nan=math.inf).argsort(dim=-1, stable=True)
        margin_PS = chosen_PS.gather(1, best_PS) - rejected_PS.gather(1, worst_PS)
        there_P, also_P = halves(score_BS.isfinite().sum(-1))
        contrasts_P = there_P.minimum(also_P)
        paired_PS = torch.arange(margin_PS.shape[1], device=margin_PS.device) < contrasts_P[:, None]
        loss_P = logistic(margin_PS).masked_fill(~paired_PS, 0.0).sum(-1)
        return loss_P / contrasts_P if self.reduction == "mean" else loss_P
