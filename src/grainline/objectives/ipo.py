r"""Identity preference optimisation: the chosen answer should gain a fixed amount on the rejected one, and no more.

Azar et al. 2023, arXiv:2310.12036, Eq. 17 (where beta is called tau):

.. math:: \ell = \Bigl(\Delta - \frac{1}{2\beta}\Bigr)^2, \qquad
          \Delta = \frac{h(y_w)}{|y_w|} - \frac{h(y_l)}{|y_l|} \text{ (mean)}
          \quad\text{or}\quad h(y_w) - h(y_l) \text{ (sum)}

with h of dpo, and ``|y|`` the sum of the tokens' weights. The formula in the paper has sums. TRL, ms-swift,
LLaMA-Factory and HALOs divide by the length; TRL's comment says that the authors confirmed it and that the paper's
results are of that form. So ``mean`` is the default here too; OpenRLHF sums.

At policy = reference the loss is (1 / (2 beta))^2.

Traps: one beta means two very different things in the two forms (1 / (2 beta) is nats a token, or nats an answer), and
at 0.1 the mean form asks for 5 nats a token, which hardly any answer reaches: the push never fades. The loss of an
overshooting pair rises again, so a chosen answer may be pushed down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import contrast, halves, log_ratio, per_token, square
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs


@spec
class IPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference"})
    paper: ClassVar[str] = "arXiv:2310.12036"

    beta: float = Field(0.1, gt=0)
    """The margin aimed at is 1 / (2 beta) nats (a token, or an answer); smaller moves further. TRL's default."""
    normalise: Literal["mean", "sum"] = "mean"
    """Log-ratios per token (mean: TRL's, and by its account the authors') or per answer (sum: Eq. 17)."""

    @property
    def constant(self) -> float:
        """The loss at policy = reference."""
        return (0.5 / self.beta) ** 2

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        ratio_B = log_ratio(policy, reference)
        ratio_B = per_token(ratio_B, policy) if self.normalise == "mean" else ratio_B
        chosen_P, rejected_P = halves(ratio_B)
        return contrast("ipo", square(chosen_P - rejected_P, 0.5 / self.beta), self.beta * ratio_B)
