r"""DNPO: a second player learns noise on the reference's view of the rejected answer, so that no margin is ever won.

Yang et al. 2025, arXiv:2502.05400. The paper's text and its reviews were read, no code of its noise; what follows from
them only by inference is marked [inferred]. A head gives the spread of every logit of the reference where it predicts a
rejected token, :math:`\sigma_t = W h_t + b`; the noisy reference :math:`\tilde\pi_0` has the logits
:math:`z_t + \sigma_t \epsilon_t` with :math:`\epsilon_t \sim N(0, I)`. With :math:`\ell(x) = \log(1 + e^{-x})`:

.. math::
   M = \log\frac{\pi(y_w)}{\pi_0(y_w)} - \log\frac{\pi(y_l)}{\tilde\pi_0(y_l)}, \qquad
   L = \ell(\beta\,M|_{noise\ fixed}) - \ell(\beta\,M|_{policy\ fixed}) + \alpha\,\mathrm{mean}(\sigma^2)

The policy enlarges the margin M, the noise makes it smaller, the last term keeps the noise small. ``joint`` plays both
at once: the two terms cancel in value, each sends its gradient to one player. ``alternating`` lets the policy move at
even steps and the noise at odd ones. [inferred]: where gradients stop (the paper marks it with a prime that it does
not define), that sigma is the head's own output without a map to positive numbers, that it starts at 0 (so that the
first step is dpo's), and the strengths beta = 0.1 (SPIN's) and alpha = 0.1. The paper calls beta lambda.

This is the objective of one iteration; generating answers and labelling them anew is a loop around it. Margin and
rewards in the log are dpo's, without noise.

Traps: noise is drawn from the process's random state, so runs repeat and resume exactly, but other splits of a step
draw other noise; with ``alternating`` the momentum of who rests still moves it a little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from grainline.objectives._parts import halves, log_ratio, logistic, summed
from grainline.types import Losses, Term, spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from grainline.types import Dims, LogProbs, Pairs


@spec
class DNPO:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "reference", "reference_hidden"})
    paper: ClassVar[str] = "arXiv:2502.05400"

    beta: float = Field(0.1, gt=0)
    """The paper's lambda: pull towards the reference, per nat; smaller moves further."""
    alpha: float = Field(0.1, gt=0)
    """Price of the noise, per squared logit; without one it would grow for ever."""
    updates: Literal["joint", "alternating"] = "joint"
    """joint = policy and noise move at every step; alternating = the policy at even steps, the noise at odd ones."""

    @property
    def exceptions(self) -> dict[str, str]:
        why = "each player's gradient is of its own term, with the other one fixed; the value is of both"
        return dict.fromkeys(
            ("gradient", "gradient_of_heads") if self.updates == "joint" else ("gradient_of_heads",), why
        )

    @property
    def constant(self) -> float:
        """The loss at policy = reference, before there is any noise."""
        return 0.0 if self.updates == "joint" else math.log(2)

    @property
    def state(self) -> dict[str, float]:
        return {"turn": 0.0} if self.updates == "alternating" else {}

    def heads(self, dims: Dims) -> nn.Module:
        from grainline.objectives.dnpo_torch import Noise

        return Noise(dims)

    def __call__(self, policy: LogProbs, reference: LogProbs, batch: Pairs, heads: Mapping[str, Tensor]) -> Losses:
        h_B = log_ratio(policy, reference)
        nothing_BT = policy.token.new_zeros(policy.token.shape)
        noise_B = summed(policy._replace(token=heads.get("shift", nothing_BT)))
        h_P, noise_P = (chosen - rejected for chosen, rejected in map(halves, (h_B, noise_B)))
        # The reference's rejected answer becomes likelier by the noise, so the margin grows by it.
        model_P = logistic(self.beta * (h_P - noise_P.detach()))
        player_P = -logistic(self.beta * (h_P.detach() - noise_P))
        _, spread_P = halves((heads.get("variance", nothing_BT) * policy.weight.abs()).sum(-1))
        _, tokens_P = halves(policy.weight.abs().sum(-1))
        turn = int(heads["turn"]) if "turn" in heads else None
        # Who does not move sends a gradient of 0 all the same: processes expect one from every tensor.
        model, player = (1.0, 1.0) if turn is None else ((1.0, 0.0) if turn % 2 == 0 else (0.0, 1.0))
        loss_P = model * model_P + player * player_P
        terms = {
            "dnpo": Term(loss_P, loss_P.new_ones(loss_P.shape)),
            "noise": Term(spread_P, tokens_P, player * self.alpha),
        }
        chosen_P, rejected_P = halves(self.beta * h_B.detach())
        log = {"rewards/chosen": chosen_P, "rewards/rejected": rejected_P, "dnpo/model": model_P.detach()}
        log["dnpo/noise_nats"] = -noise_P.detach()
        state = {} if turn is None else {"turn": heads["turn"] + 1}
        return Losses(terms, chosen_P - rejected_P, log, state)
