"""The head in chunks: frozen, trained, adapted; with bias, soft-cap and scale; and what it never holds."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from _build import adapted, apart, many, model, questions
from _truth import plain, pulled, scored
from grainline.data.collate import collate
from grainline.forward import Scorer, head


def with_biased_head() -> Any:
    """A Phi, whose head has a bias, far from zero."""
    made = model("phi", torch.float64)
    with torch.no_grad():
        made.lm_head.bias.copy_(torch.linspace(-2, 2, 64))
    return made


HEADS: dict[str, Callable[[], Any]] = {
    "frozen": lambda: adapted(model("llama", torch.float64)),
    "frozen, tied": lambda: adapted(model("llama", torch.float64, tie_word_embeddings=True)),
    "frozen bias": lambda: adapted(with_biased_head()),
    "soft-cap": lambda: adapted(model("gemma2", torch.float64)),
    "scale": lambda: adapted(model("cohere", torch.float64)),
    "trained whole": lambda: adapted(model("llama", torch.float64), modules_to_save=("lm_head",)),
    "adapted": lambda: adapted(model("llama", torch.float64), targets=("q_proj", "lm_head")),
    "adapted bias": lambda: adapted(with_biased_head(), targets=("q_proj", "lm_head")),
    "all trains, tied": lambda: model("llama", torch.float64, tie_word_embeddings=True).requires_grad_(True),
    "head alone trains": lambda: _only_head(model("llama", torch.float64)),
}

TRAINED = {"trained whole", "adapted", "adapted bias", "head alone trains"}  # a tied head trains as the embedding


def _only_head(made: Any) -> Any:
    made.requires_grad_(False)
    made.lm_head.requires_grad_(True)
    return made


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


def test_frozen_and_checkpointed_head_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(adapted(model("gemma2", torch.float64)))
    rowwise = pulled(scorer, scored(scorer, questions(), "tree").token)
    monkeypatch.setattr(head, "_is_plain_frozen", lambda head: False)
    assert apart(rowwise, pulled(scorer, scored(scorer, questions(), "tree").token)) < 1e-12


class Largest(TorchDispatchMode):
    """Remembers the most elements that any operation's result had."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize("kind", ["frozen", "head alone trains", "all trains", "no gradient"])
def test_logits_never_exist_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    V, chunk = 5000, 16
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", chunk * V)
    base = model("llama", vocab_size=V)
    made = {"all trains": lambda m: m, "head alone trains": _only_head}.get(kind, adapted)(base)
    scorer = Scorer(made)
    batch = collate(many(30))
    N, M = batch.ids.numel(), len(batch.target)
    assert 32 * V < M * V / 4  # the head's own weight is no excuse
    with torch.set_grad_enabled(kind != "no gradient"), Largest() as seen:
        token = scorer(batch).token
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
        scorer = Scorer({"all trains": lambda m: m, "head alone trains": _only_head}.get(kind, adapted)(base))
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
