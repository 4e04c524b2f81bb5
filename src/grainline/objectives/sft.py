r"""Supervised fine-tuning: make the desirable answers likely.

.. math:: \ell = -\frac{\sum_t w_t \log\pi(y_t \mid x, y_{<t})}{\sum_t |w_t|}

The mean is taken over all tokens of the optimizer step, not over rows, so a long answer counts for more than a short
one, as in every causal language-model trainer. Of pairs only the chosen answer is learnt; of labelled rows, only the
desirable ones. Needs no reference. Where weights are negative (unlikelihood), the count is of their absolute values.

Traps: a chosen answer that is merely the better one is learnt whole, mistakes included. Negative weights have no bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from grainline.objectives._parts import likelihood
from grainline.types import Losses, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Pairs, Rows


@spec
class SFT:
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""

    def __call__(
        self, policy: LogProbs, reference: LogProbs | None, batch: Pairs | Rows, heads: Mapping[str, Tensor]
    ) -> Losses:
        return Losses({"sft": likelihood(policy, batch)}, None, {})
