r"""Imitation with a sign: the chosen answer's tokens likelier, the rejected one's unlikelier while they are likely.

.. math:: \ell = \frac{-\sum_{t \in y_w} w_t \log p_t + \sum_{t \in y_l} w_t\,[-\log p_t \le \theta]\,\log p_t}
                      {\#\{t : w_t \ne 0,\ t \text{ not left alone}\}}, \qquad p_t = \pi(y_t \mid x, y_{<t})

The objective of FIGA (Guo et al. 2023, arXiv:2311.04072) for any token weights; with the supervision ``edits`` it is
FIGA (preset figa). The supervision says how loudly a token speaks, the side gives the sign. Unlikelihood has no bound,
so a rejected token is left alone once its cross-entropy is above theta. Needs no reference. The count runs over the
whole step; as in the release, a rejected token that is left alone leaves the divisor too. Then the divisor depends on
the model, and the step's log-probs are taken first, at one more forward (``divisor=marked`` keeps such tokens in it,
and needs none; the loss is then smaller by their share).

Traps: with ``sequence`` (all weights 1) it unlearns rejected answers whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import contrast, halves, per_token, summed
from grainline.types import Term, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class SignedSFT:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2311.04072"
    until: float = Field(0.6, ge=0)
    """theta: cross-entropy in nats above which a rejected token is left alone; 0.6 (p = 0.55) in FIGA's release."""

    divisor: Literal["active", "marked"] = "active"
    """What the step's loss is divided by: marked tokens without those left alone, as released, or all marked ones."""

    @property
    def coupled(self) -> bool:
        """Whether the divisor is known only once every log-prob of the step is."""
        return self.divisor == "active"

    @property
    def exceptions(self) -> dict[str, str]:
        """Of the room's battery."""
        said = {"repetition": "the divisor counts tokens that speak, as in the release, not how loudly"}
        why = "what is left alone depends on the model, and leaves the divisor that all rows share"
        return said | ({"counts": why, "independence": why} if self.coupled else {})

    def __call__(self, policy: LogProbs, reference: None, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        nll_BT = -policy.token * policy.weight * policy.mask
        chosen_PT, rejected_PT = halves(nll_BT)
        _, likely_PT = halves(-policy.token.detach() <= self.until)
        loss_P = chosen_PT.sum(-1) - (rejected_PT * likely_PT).sum(-1)
        chosen_PT, rejected_PT = halves(policy.weight != 0)
        if self.divisor == "active":
            rejected_PT = rejected_PT & likely_PT
        count_P = (chosen_PT.sum(-1) + rejected_PT.sum(-1)).to(loss_P.dtype)
        losses = contrast("signed-sft", loss_P, per_token(summed(policy), policy))
        return losses._replace(terms={"signed-sft": Term(loss_P, count_P)})
