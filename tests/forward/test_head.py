"""The head in chunks: frozen, trained, adapted; with bias, soft-cap and scale; and what it never holds."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from _build import adapted, apart, many, model, questions
from _heads import HEADS, Largest, only_head
from _truth import plain, pulled, scored
from grainline.data.collate import collate
from grainline.forward import Scorer, head

TRAINED = {"trained whole", "adapted", "adapted bias", "head alone trains"}  # a tied head trains as the embedding


@pytest.mark.parametrize("at_once", [1, 64 * 7, 2**24], ids=["token by token", "sevens", "whole"])
@pytest.mark.parametrize("kind", HEADS)
def test_head_in_chunks(kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen, trained, adapted; with bias, soft-cap or scale: values and gradients are the plain model's."""
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", at_once)
    scorer = Scorer(HEADS[kind]())
    with scorer.plain() as own:
        truth = plain(own, questions())
        wanted = pulled(scorer, truth)
    assert any("lm_head" in name for name in wanted) == (kind in TRAINED)
    found = scored(scorer, questions(), "tree")
    assert float((found.token - truth).detach().abs().max()) < 1e-5
    assert apart(pulled(scorer, found.token), wanted) < 1e-5
    with torch.no_grad():
        assert torch.allclose(scored(scorer, questions(), "tree").token, found.token.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("at_once", [64 * 7, 2**24], ids=["sevens", "whole"])
@pytest.mark.parametrize("kind", HEADS)
def test_concentration(kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """log sum p^2 of plain logits, answer by answer; log-probs and their gradients are as without it."""
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", at_once)
    scorer = Scorer(HEADS[kind]())
    batch, examples = collate(questions()), questions()
    truth = []
    with scorer.plain() as own, torch.no_grad():
        for prompt, answer in [(e.prompt, e.answers[side].ids) for side in (0, 1) for e in examples]:
            logits = own(torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            truth.append((2 * logits.log_softmax(-1)).logsumexp(-1))
    plainly = scorer(batch)
    found = scorer(batch, concentration=True)
    assert found.concentration is not None
    assert not found.concentration.requires_grad
    wanted = torch.nn.utils.rnn.pad_sequence(truth, batch_first=True)
    assert float(wanted.min()) < -0.1
    assert torch.allclose(found.concentration, wanted, rtol=0, atol=1e-5)
    assert torch.equal(found.token, plainly.token)
    assert apart(pulled(scorer, found.token), pulled(scorer, plainly.token)) < 1e-12
    with torch.no_grad():
        assert torch.allclose(scorer(batch, concentration=True).concentration, found.concentration, rtol=0, atol=1e-12)


def test_concentration_together_with_a_divergence() -> None:
    scorer, batch = Scorer(HEADS["frozen"]()), collate(questions())
    with torch.no_grad():
        against = scorer(batch, keep=("hidden",))
    both, one = scorer(batch, against, kl=True, concentration=True), scorer(batch, concentration=True)
    assert both.kl is not None
    assert torch.equal(both.concentration, one.concentration)
    assert torch.allclose(both.token, one.token, rtol=0, atol=1e-9)


def test_frozen_and_checkpointed_head_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(adapted(model("gemma2", torch.float64)))
    rowwise = pulled(scorer, scored(scorer, questions(), "tree").token)
    monkeypatch.setattr(head, "_is_plain_frozen", lambda head: False)
    assert apart(rowwise, pulled(scorer, scored(scorer, questions(), "tree").token)) < 1e-12


@pytest.mark.parametrize("concentration", [False, True], ids=["", "concentration"])
@pytest.mark.parametrize("kind", ["frozen", "head alone trains", "all trains", "no gradient"])
def test_logits_never_exist_whole(kind: str, concentration: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    V, chunk = 5000, 16
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", chunk * V)
    base = model("llama", vocab_size=V)
    made = {"all trains": lambda m: m, "head alone trains": only_head}.get(kind, adapted)(base)
    scorer = Scorer(made)
    batch = collate(many(30))
    N, M = batch.ids.numel(), len(batch.target)
    assert 32 * V < M * V / 4  # the head's own weight is no excuse
    with torch.set_grad_enabled(kind != "no gradient"), Largest() as seen:
        token = scorer(batch, concentration=concentration).token
        if kind != "no gradient":
            token.sum().backward()
    assert chunk * V <= seen.elements <= 32 * V
    with Largest() as plainly, scorer.plain() as own:  # the watch does see them where they exist
        own(batch.ids)
    assert plainly.elements >= N * V


@pytest.mark.parametrize("kind", ["frozen", "head alone trains", "all trains"])
def test_nothing_of_vocabulary_size_is_kept_for_backward(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the weights, what autograd holds between forward and backward does not grow with the vocabulary."""

    def held(V: int) -> int:
        monkeypatch.setattr(head, "LOGITS_AT_ONCE", 16 * V)
        base = model("llama", vocab_size=V)
        scorer = Scorer({"all trains": lambda m: m, "head alone trains": only_head}.get(kind, adapted)(base))
        weights = {p.untyped_storage().data_ptr() for p in scorer.parameters()}
        seen: list[weakref.ref[Tensor]] = []

        def note(tensor: Tensor) -> Tensor:
            seen.append(weakref.ref(tensor))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            token = scorer(collate(many(30))).token
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for ref in seen if (t := ref()) is not None}
        token.sum().backward()
        return sum(storage.nbytes() for at, storage in storages.items() if at not in weights)

    assert held(5000) == held(500) > 0
