r"""How far the policy has gone from the reference on its own answers, where it counts: KL(policy || reference).

Per token of an answer that the policy gave, with :math:`r = \pi_0(y_t) / \pi(y_t)`:

* *exact*: the divergence of the two distributions over the whole vocabulary at that place, so that only the path is
  drawn; not where the adapter changes the head, whose two versions cannot be asked at once;
* *k1*: :math:`-\log r`, and *k3*: :math:`r - 1 - \log r` (Schulman 2020), which are right in the mean for answers drawn
  at temperature 1 with top-p 1, and not for the likeliest ones. k3 is never negative.

Sums over an answer, nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from grainline.evaluation.preferences import forwards
from grainline.evaluation.speakers import Subject
from grainline.types import Answer, AnswerTokens, Batch, Example, LogProbs, Record


def example(name: str, prompt: Sequence[int], answer: Sequence[int]) -> Example:
    """A prompt and an answer that are tokens already."""
    ids = tuple(answer)
    tokens = AnswerTokens(ids, ((0, 0),) * len(ids), (1.0,) * len(ids))
    return Example(Record(name, "", (Answer(""),), label=True), tuple(prompt), (tokens,))


def measure(subject: Subject, lines: Sequence[Mapping[str, Any]], *, max_tokens: int) -> list[dict[str, float | None]]:
    """``kl`` (exact; None where it cannot be), ``k1`` and ``k3`` of each line of ``answers.answer``."""
    import torch

    assert subject.reference is not None
    examples = [example(str(i), *line["ids"]) for i, line in enumerate(lines)]
    found: dict[str, dict[str, float | None]] = {}
    with torch.no_grad():
        for batch in forwards(examples, rows="chosen", layout=subject.layout, max_tokens=max_tokens):  # type: ignore[arg-type]
            policy, reference = _voices(subject, batch.to(subject.device))
            ratio = (policy.token - reference.token).double() * policy.mask
            k1, k3 = ratio.sum(-1).tolist(), ((-ratio).expm1() + ratio).sum(-1).tolist()
            exact = reference.kl.double().sum(-1).tolist() if reference.kl is not None else [None] * len(k1)
            for name, *values in zip(batch.facts.ids, exact, k1, k3, strict=True):
                found[name] = dict(zip(("kl", "k1", "k3"), map(_rounded, values), strict=True))
    return [found[str(i)] for i in range(len(lines))]


def _voices(subject: Subject, batch: Batch) -> tuple[LogProbs, LogProbs]:
    """What both say; the reference's ``kl`` is from the policy's distribution to its own."""
    policy, reference = subject.policy, subject.reference
    assert reference is not None
    with policy.within():
        said = policy.scorer(batch, keep=("hidden",))
    if reference.scorer is policy.scorer:
        exact = reference.scorer.reference_head is None  # one head serves both
    else:
        reference.scorer.reference_head, exact = policy.scorer.causal.get_output_embeddings(), True
    with reference.within():
        return said, reference.scorer(batch, said, kl=True) if exact else reference.scorer(batch)


def _rounded(value: float | None) -> float | None:
    return round(value, 6) if value is not None and math.isfinite(value) else None
