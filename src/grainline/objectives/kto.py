r"""KTO: single answers with a thumb up or down, each held against how much the policy has gained on any answer at all.

Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 7 and 8, as in TRL. With h of dpo, and y' answers to other prompts:

.. math::
   z_0 = \max\Bigl(0, \mathrm{mean}_{x, y'}\,h(x, y')\Bigr), \qquad
   \ell(y) = \begin{cases}
     \lambda_D\,\bigl(1 - \sigma(\beta\,[h(y) - z_0])\bigr) & y \text{ desirable} \\
     \lambda_U\,\bigl(1 - \sigma(\beta\,[z_0 - h(y)])\bigr) & \text{otherwise} \end{cases}

z_0 estimates the divergence of policy from reference; it carries no gradient. Its mean is taken over the whole
optimizer step and all processes: each row's prompt is read with one more answer, that of the next row with another
prompt. (TRL takes it over a device's batch, and pairs rows by their order in the file.) Pairs are two rows.

At policy = reference z_0 is 0 and the loss half the weight of the row.

Traps: ``batch_size`` is part of the method, since z_0 is estimated from one mismatched answer a row (below 8 rows it is
noise), and a step must hold two prompts at least; uneven classes want uneven weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from grainline.objectives._parts import desirable, halves, log_ratio
from grainline.types import Losses, Pairs, Rows, Term, spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs


@spec
class KTO:
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "reference", "mismatched"})
    paper: ClassVar[str] = "arXiv:2402.01306"
    coupled: ClassVar[bool] = True
    exceptions: ClassVar[dict[str, str]] = {
        "independence": "z_0 is a mean over the mismatched answers of the whole step",
        "gradient": "z_0 enters the value and carries no gradient",
    }

    beta: float = Field(0.1, gt=0)
    """Pull towards the reference, per nat; smaller moves further. 0.1 is the paper's."""
    desirable_weight: float = Field(1.0, gt=0)
    """How loudly desirable answers speak. With uneven classes choose it so that desirable_weight * desirable rows is
    1 to 1.33 times undesirable_weight * undesirable rows (the paper's rule)."""
    undesirable_weight: float = Field(1.0, gt=0)
    """How loudly undesirable answers speak."""

    @property
    def constant(self) -> float | None:
        """The loss at policy = reference."""
        same = self.desirable_weight == self.undesirable_weight
        return self.desirable_weight / 2 if same else None

    def __call__(
        self, policy: LogProbs, reference: LogProbs, batch: Rows | Pairs, heads: Mapping[str, Tensor]
    ) -> Losses:
        h_B = log_ratio(policy, reference)
        label_B = desirable(batch)
        h_B, other_B = h_B[: len(label_B)], h_B[len(label_B) :].detach()
        z0 = h_B.new_zeros(())
        if len(other_B):  # an evaluation reads no mismatched answers, and takes no loss from here
            weight_B = batch.weight.to(h_B.dtype)
            z0 = ((weight_B * other_B).sum() / weight_B.sum().clamp(min=1e-30)).clamp(min=0)
        sign_B = label_B.to(h_B.dtype) * 2 - 1
        loud_B = h_B.new_tensor([self.undesirable_weight, self.desirable_weight])[label_B.long()]
        loss_B = loud_B * (-self.beta * sign_B * (h_B - z0)).sigmoid()
        reward_B = self.beta * h_B.detach()
        log, margin = {"rewards/answer": reward_B}, None
        if len(other_B):
            log["kl"] = other_B
        if isinstance(batch, Pairs):
            chosen_P, rejected_P = halves(reward_B)
            margin, log = chosen_P - rejected_P, {"rewards/chosen": chosen_P, "rewards/rejected": rejected_P}
        return Losses({"kto": Term(loss_B, loss_B.new_ones(loss_B.shape))}, margin, log)
