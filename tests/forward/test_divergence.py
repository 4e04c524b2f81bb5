"""The divergence over the whole vocabulary, against its definition on full logits: every head, every layout."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from _build import adapted, apart, gradients, many, model, questions
from _heads import HEADS, Largest, only_head
from _truth import LAYOUTS
from grainline.data.collate import collate
from grainline.forward import Scorer, head
from grainline.types import Example, LogProbs


def definition(policy: Any, reference: Any, examples: list[Example]) -> Tensor:
    """(B, T), one (prompt, answer) at a time through transformers' own forward, both distributions whole."""
    found = []
    for prompt, answer in [(e.prompt, e.answers[side].ids) for side in (0, 1) for e in examples]:
        ids = torch.tensor([prompt + answer])
        logp, logq = (
            m(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for m in (policy, reference)
        )
        found.append((logq.detach().exp() * (logq.detach() - logp)).sum(-1))
    return nn.utils.rnn.pad_sequence(found, batch_first=True)


def start(kind: str) -> tuple[Scorer, Any]:
    """A policy and a reference that differs from it in its body and, where the head may train, in its head."""
    policy = HEADS[kind]()
    reference = copy.deepcopy(policy).requires_grad_(False)
    with torch.no_grad():
        for name, tensor in policy.named_parameters():
            if tensor.requires_grad:
                tensor.add_(0.2 * torch.randn_like(tensor, generator=None) if "norm" not in name else 0)
    scorer = Scorer(policy)
    scorer.reference_head = Scorer(reference).causal.get_output_embeddings()
    return scorer, reference


def pulled(scorer: Scorer, found: LogProbs) -> dict[str, Tensor]:
    """Gradients where token and divergence pull with weights of their own."""
    scorer.zero_grad()
    assert found.kl is not None
    weight = torch.cos(torch.arange(found.token.numel(), dtype=found.token.dtype)).view_as(found.token)
    (weight * found.token + weight.roll(3) * found.mask * found.kl).sum().backward()
    return gradients(scorer)


@pytest.mark.parametrize("at_once", [1, 64 * 7, 2**24], ids=["token by token", "sevens", "whole"])
@pytest.mark.parametrize("kind", HEADS)
def test_divergence_in_chunks(kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", at_once)
    scorer, reference = start(kind)
    other = Scorer(reference)
    with scorer.plain() as own, other.plain() as frozen:
        truth = definition(own, frozen, questions())
    batch = collate(questions())
    with torch.no_grad():
        against = other(batch, keep=("hidden",))
    plainly = scorer(batch)
    wanted = pulled(scorer, plainly._replace(kl=truth))
    assert float(truth.detach().max()) > 1e-3
    found = scorer(batch, against, kl=True)
    assert found.kl is not None
    assert float((found.kl - truth).detach().abs().max()) < 1e-5
    assert torch.allclose(found.token, plainly.token, rtol=0, atol=1e-9)
    assert apart(pulled(scorer, found), wanted) < 1e-5
    with torch.no_grad():
        again = scorer(batch, against, kl=True)
        assert again.kl is not None
        assert torch.allclose(again.kl, found.kl, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_every_layout_gives_the_same(name: str) -> None:
    scorer = Scorer(adapted(model(name, torch.float64)))
    found = []
    for layout in LAYOUTS:
        scorer.use(packed=layout != "padded")
        batch = collate(questions(), layout=layout)
        with torch.no_grad():
            with scorer.model.disable_adapter():  # type: ignore[operator]
                against = scorer(batch, keep=("hidden",))
            found.append(scorer(batch, against, kl=True).kl)
    assert float(found[0].max()) > 1e-4
    for other in found[1:]:
        assert torch.allclose(other, found[0], rtol=0, atol=1e-5)


def test_a_model_does_not_diverge_from_itself() -> None:
    scorer = Scorer(model("gemma2"))
    batch = collate(questions())
    with torch.no_grad():
        found = scorer(batch, scorer(batch, keep=("hidden",)), kl=True).kl
    assert float(found.abs().max()) < 1e-6


def test_nobody_asks_and_nothing_is_computed() -> None:
    scorer = Scorer(model("llama"))
    batch = collate(questions())
    with torch.no_grad():
        plain = scorer(batch)
        assert plain[3:] == (None,) * 7
        assert scorer(batch, scorer(batch, keep=("hidden",))).kl is None


@pytest.mark.parametrize("kind", ["frozen", "head alone trains", "no gradient"])
def test_distributions_never_exist_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    V, chunk = 5000, 16
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", chunk * V)
    base = model("llama", vocab_size=V)
    scorer = Scorer((only_head if kind == "head alone trains" else adapted)(base))
    batch = collate(many(30))
    with torch.no_grad():
        against = scorer(batch, keep=("hidden",))
    with torch.set_grad_enabled(kind != "no gradient"), Largest() as seen:
        found = scorer(batch, against, kl=True)
        if kind != "no gradient":
            (found.token.sum() + found.kl.sum()).backward()  # type: ignore[union-attr]
    assert seen.elements <= 32 * V < len(batch.target) * V / 4
