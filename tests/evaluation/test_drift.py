"""KL(policy || reference) on the policy's own answers, against transformers' logits; k1 and k3 by their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from grainline.evaluation import drift
from grainline.evaluation.speakers import Speaker, Subject

LINES = [
    {"ids": [[5, 6, 7, 8], [9, 10, 11, 2]]},
    {"ids": [[5, 6, 7, 8], [12, 2]]},
    {"ids": [[20, 21], [22, 23, 24]]},
]


def logps(speaker: Speaker, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """(tokens, vocabulary) where the answer's tokens are predicted."""
    with speaker.plain() as model, torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


def test_exact_and_estimates(voices: Subject) -> None:
    found = drift.measure(voices, LINES, max_tokens=1000)
    for line, said in zip(LINES, found, strict=True):
        prompt, answer = line["ids"]
        assert voices.reference is not None
        p, q = (logps(who, prompt, answer) for who in (voices.policy, voices.reference))
        taken = torch.tensor(answer)[:, None]
        log_r = (q - p).gather(-1, taken).squeeze(-1)
        assert said["kl"] == pytest.approx(float((p.exp() * (p - q)).sum()), abs=2e-6)
        assert said["k1"] == pytest.approx(float(-log_r.sum()), abs=2e-6)
        assert said["k3"] == pytest.approx(float((log_r.exp() - 1 - log_r).sum()), abs=2e-6)
    assert drift.measure(voices, LINES, max_tokens=8) == [pytest.approx(said, abs=2e-6) for said in found]


def test_the_estimates_are_right_in_the_mean(voices: Subject) -> None:
    """Over all tokens that may come next, weighted by the policy, k1 and k3 are the divergence itself."""
    assert voices.reference is not None
    prompt = [5, 6, 7, 8]
    (p,), (q,) = (logps(who, prompt, [1]) for who in (voices.policy, voices.reference))
    every = [{"ids": [prompt, [token]]} for token in range(len(p))]
    found = drift.measure(voices, every, max_tokens=10_000)
    exact = float((p.exp() * (p - q)).sum())
    for name in ("kl", "k1", "k3"):
        mean = sum(float(chance) * said[name] for chance, said in zip(p.exp(), found, strict=True))  # type: ignore[operator]
        assert mean == pytest.approx(exact, abs=1e-5)


def test_a_reference_of_its_own(voices: Subject) -> None:
    """Two models instead of one with its adapter off say the same."""
    import copy
    from contextlib import nullcontext

    from grainline.forward import Scorer

    apart: Any = copy.deepcopy(voices.policy.scorer.model).unload()
    other = voices._replace(reference=Speaker("reference", Scorer(apart).eval(), nullcontext))
    wanted = drift.measure(voices, LINES, max_tokens=1000)
    assert drift.measure(other, LINES, max_tokens=1000) == [pytest.approx(said, abs=2e-6) for said in wanted]


def test_a_changed_head_has_no_exact_divergence(voices: Subject) -> None:
    voices.policy.scorer.reference_head = voices.policy.scorer.causal.get_output_embeddings()
    assert [said["kl"] for said in drift.measure(voices, LINES, max_tokens=1000)] == [None] * 3
