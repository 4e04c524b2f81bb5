"""The parts objectives are composed of: pool the tokens, contrast the answers, link the margin to a loss.

``B`` rows, ``P`` pairs (``B = 2 P``, chosen first), ``T`` tokens. Everything is in nats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from grainline.types import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.types import LogProbs, Losses, Pairs, Rows, Term


def summed(logprobs: LogProbs) -> Tensor:
    """Weighted sum over the answer's tokens: (B,) nats. With weight 1 it is log p(answer | prompt)."""
    return (logprobs.token * logprobs.weight).sum(-1)


def log_ratio(policy: LogProbs, reference: LogProbs) -> Tensor:
    """h(y) = sum_t w_t [log policy(y_t) - log reference(y_t)]: (B,) nats; the implied reward before beta.

    The reference is a constant: no gradient reaches it.
    """
    return summed(policy) - summed(reference).detach()


def per_token(total_B: Tensor, logprobs: LogProbs) -> Tensor:
    """A sum over an answer's tokens, divided by their weights' sizes: by the length where every weight is 1.

    A silent answer (no weight at all) keeps its sum, which is 0.
    """
    size_B = logprobs.weight.abs().sum(-1)
    return total_B / size_B.where(size_B > 0, 1.0)


def sequence_kl(policy: LogProbs) -> Tensor:
    """sum_t w_t KL_t(reference || policy): (B,) nats, how far the policy has moved along each answer.

    The divergence is taken over the whole vocabulary at each position; its gradient reaches the policy alone.
    """
    if policy.kl is None:
        raise ValueError("these log-probs carry no divergence: state the need 'kl'")
    return (policy.kl * policy.weight).sum(-1)


def masked_margin(policy: LogProbs, reference: LogProbs, reward_BT: Tensor, kl_BT: Tensor) -> Tensor:
    """u - delta: (P,) nats, where each token's log-ratio counts ``reward_BT`` times and its divergence ``kl_BT`` times.

    u is the masked log-ratio of chosen minus rejected, delta the masked divergence of rejected minus chosen. With all
    masks 1 this is TDPO1's margin before beta.
    """
    gain_BT = policy.token - reference.token.detach()  # the masks, unlike the reference, have a gradient
    apart_B = sequence_kl(policy._replace(weight=policy.weight * kl_BT))
    chosen_P, rejected_P = halves((gain_BT * policy.weight * reward_BT).sum(-1) + apart_B)
    return chosen_P - rejected_P


def segments(logprobs: LogProbs) -> tuple[Tensor, Tensor]:
    """(segment (B, T), score (B, S)): which segment each token is in, -1 outside; NaN where there are fewer than S."""
    if logprobs.segment is None or logprobs.score is None:
        raise ValueError("these log-probs carry no segments: the supervision makes none")
    return logprobs.segment, logprobs.score


def by_segment(token_BT: Tensor, segment_BT: Tensor, score_BS: Tensor) -> Tensor:
    """(B, S) the sum of ``token_BT`` over each segment's tokens."""
    import torch

    number_S = torch.arange(score_BS.shape[1], device=token_BT.device)
    inside_BST = segment_BT[:, None, :] == number_S[:, None]
    return (token_BT[:, None, :] * inside_BST).sum(-1)


def pair_sum(value_B: Tensor) -> Tensor:
    """Rows [chosen; rejected] -> the sum of both, (P,)."""
    chosen_P, rejected_P = halves(value_B)
    return chosen_P + rejected_P


def halves(value_B: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [chosen; rejected] -> (chosen, rejected), each (P,)."""
    chosen_P, rejected_P = value_B.chunk(2)
    return chosen_P, rejected_P


def desirable(batch: Pairs | Rows) -> Tensor:
    """(B,) bool of single answers: their label; of pairs, whose rows are [chosen; rejected], the first half."""
    import torch

    if isinstance(batch, Rows):
        return batch.label
    return torch.arange(2 * len(batch.ids), device=batch.weight.device) < len(batch.ids)


def logistic(margin: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-(1 - e) log sigmoid(margin) - e log sigmoid(-margin): the Bradley-Terry link when a share e of labels is wrong.

    Mitchell 2023, "A note on DPO with noisy preferences" (cDPO), Eq. 3; e = 0 is the plain link.
    """
    from torch.nn.functional import logsigmoid

    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


def hinge(margin: Tensor) -> Tensor:
    """max(0, 1 - margin): no push beyond a margin of 1."""
    return (1 - margin).relu()


def square(margin: Tensor, target: Tensor | float) -> Tensor:
    """(margin - target)^2: the margin is to become the target, not to grow without end."""
    return (margin - target) ** 2


def box_cox(logprob: Tensor, alpha: float) -> Tensor:
    """(1 - p^-alpha) / alpha of a log-prob, which tends to the log-prob itself as alpha goes to 0.

    The slope is p^-alpha. The exponent is clamped at 80 so that float32 stays finite; beyond that there is no gradient.
    """
    return logprob if abs(alpha) < 1e-8 else -(-alpha * logprob).clamp(max=80.0).expm1() / alpha


def target_margin(gamma: float, gamma_as: str, beta: float) -> float:
    """SimPO's margin in units of reward: tools state it so (``margin``), or divided by beta (``ratio``)."""
    return gamma * beta if gamma_as == "ratio" else gamma


def likelihood(policy: LogProbs, batch: Pairs | Rows, coefficient: float = 1.0) -> Term:
    """The mean negative log-prob over the tokens of desirable answers: of pairs the chosen half."""
    from grainline.types import Rows, Term

    rows = len(batch.ids)  # pairs: the chosen half stands first
    nll_B, tokens_B = -summed(policy)[:rows], policy.weight[:rows].abs().sum(-1)
    if isinstance(batch, Rows):
        nll_B, tokens_B = nll_B * batch.label, tokens_B * batch.label
    return Term(nll_B, tokens_B, coefficient)


def contrast(name: str, loss_P: Tensor, reward_B: Tensor, **more: Term) -> Losses:
    """What a pairwise objective answers: its loss, one count a pair; the margin and both rewards, detached."""
    from grainline.types import Losses, Term

    chosen_P, rejected_P = halves(reward_B.detach())
    log = {"rewards/chosen": chosen_P, "rewards/rejected": rejected_P}
    return Losses({name: Term(loss_P, loss_P.new_ones(loss_P.shape)), **more}, chosen_P - rejected_P, log)


DIVERGENCES = ("reverse_kl", "forward_kl", "js", "alpha")


def divergence_score(log_ratio: Tensor, divergence: str, alpha: float) -> Tensor:
    """f'(u) - f'(1) for the ratio u = e^h, h = log(policy / reference): 0 at the reference, and it grows with h.

    Wang et al. 2023, "Beyond Reverse KL", arXiv:2309.16240, Table 1: the reward of f-DPO is beta f'(u) up to a
    constant, which cancels between chosen and rejected.

    ============  =======================  ========================
    divergence    f'(u) in the paper       here
    ============  =======================  ========================
    reverse_kl    log u + 1                h
    forward_kl    -1 / u                   1 - e^-h
    js            log(2u / (1 + u))        log sigmoid(h) + log 2
    alpha         (1 - u^-c) / c           (e^((a - 1) h) - 1) / (a - 1)
    ============  =======================  ========================

    ``alpha`` is a = 1 - c, one minus the paper's: 1 is the reverse KL, 0 the forward KL; TRL 1.16 does the same.
    Exponents are clamped at 80 so that float32 stays finite; beyond that the score has no gradient.
    """
    from torch.nn.functional import logsigmoid

    if divergence == "reverse_kl" or (divergence == "alpha" and abs(alpha - 1) < 1e-6):
        return log_ratio
    if divergence == "forward_kl":
        return -(-log_ratio).clamp(max=80.0).expm1()
    if divergence == "js":
        return logsigmoid(log_ratio) + math.log(2)
    return ((alpha - 1) * log_ratio).clamp(max=80.0).expm1() / (alpha - 1)
