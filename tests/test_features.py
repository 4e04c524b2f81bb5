"""Frozen features against transformers' own hidden states, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from _toy import Toy
from grainline import features as module
from grainline import models
from grainline.features import Features, Passage, Taken, tokens_of

CHAT = ({"role": "user", "content": "tell me of the sky"},)
ANSWER = "glad kind yes. no never bad cold."
PIECES = ((0, 15), (15, 33))


@pytest.fixture
def model(toy: Toy) -> models.LoadedModel:
    return models.load(toy.model)


def truth(model: models.LoadedModel, layer: int, pool: str) -> torch.Tensor:
    """The slow way: tokens found by hand in the template's own text, all hidden states, one row."""
    words = model.tokenizer
    text = words.apply_chat_template([*CHAT, {"role": "assistant", "content": ANSWER}], tokenize=False)
    found = words(text, add_special_tokens=False, return_offsets_mapping=True)
    with torch.no_grad():
        states = model.model(torch.tensor([found["input_ids"]]), output_hidden_states=True).hidden_states[layer][0]
    start, rows = text.index(ANSWER), []
    for a, b in PIECES:
        here = [t for t, (_, stop) in enumerate(found["offset_mapping"]) if start + a < stop <= start + b]
        rows.append(states[here].mean(0) if pool == "mean" else states[here[-1]])
    return torch.stack(rows)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_features_are_transformers_hidden_states(model: models.LoadedModel, pool: Any) -> None:
    """After one layer of two and after both, side by side, with other answers in the same forward."""
    read = Features(model, None, Taken(layers=(0.5, 1.0), pool=pool))
    expected = torch.cat([truth(model, 1, pool), truth(model, 2, pool)], 1)
    company = [Passage(CHAT, "no no", ((0, 5),)), Passage("plain text", " yes", ((0, 4),))]
    found = read([company[0], Passage(CHAT, ANSWER, PIECES), company[1]])
    assert torch.allclose(found[1], expected, atol=1e-5)
    assert [part.shape for part in found] == [(1, 64), (2, 64), (1, 64)]
    assert (read.depth, read.layers, read.width) == (2, (1, 2), 64)


def test_nothing_above_the_highest_layer_is_computed(model: models.LoadedModel) -> None:
    read = Features(model, None, Taken(layers=(0.5,)))
    read([Passage(CHAT, "yes", ((0, 3),))])  # the layout is found with all of the model
    calls = []
    model.model.model.layers[1].register_forward_hook(lambda *_: calls.append("layer 2"))
    model.model.lm_head.register_forward_hook(lambda *_: calls.append("head"))
    read([Passage(CHAT, "no never", ((0, 8),))])
    assert calls == []


def test_what_was_read_is_read_once(model: models.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = [Passage(CHAT, ANSWER, PIECES), Passage(CHAT, "yes sure", ((0, 8),))]
    first = Features(model, tmp_path, Taken())(passages)
    monkeypatch.setattr(Features, "_read", lambda *_: pytest.fail("it was there"))
    again = Features(model, tmp_path, Taken())(passages[::-1])[::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (Taken(layers=(1.0,)), Taken(pool="mean")):
        with pytest.raises(pytest.fail.Exception, match="it was there"):
            Features(model, tmp_path, other)(passages)


def test_a_job_that_was_killed_gives_the_same_bytes(
    model: models.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forwards are planned as if nothing was there, so each keeps its company."""
    passages = [Passage(CHAT, f"{word} kind {k}", ((0, 6),)) for k in range(12) for word in ("yes", "no")]
    taken = Taken(max_tokens=60)
    whole = Features(model, tmp_path / "whole", taken)(passages)
    plain, calls = Features._read, []

    def dies(self: Features, *asked: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, *asked)

    monkeypatch.setattr(Features, "_read", dies)
    with pytest.raises(KeyboardInterrupt):
        Features(model, tmp_path / "killed", taken)(passages)
    assert len(list((tmp_path / "killed").rglob("*.safetensors"))) == 2
    again = Features(model, tmp_path / "killed", taken)(passages)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    files = [{f.name: f.read_bytes() for f in (tmp_path / k).rglob("*.safetensors")} for k in ("whole", "killed")]
    assert files[0] == files[1]
    assert len(files[0]) > 3


def test_what_cannot_be_read_is_said(model: models.LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt without a token; pieces that were cut away with the end of a long answer."""
    monkeypatch.setattr(module, "MAX_LENGTH", 40)
    read = Features(model, None, Taken())
    long = Passage(CHAT, "yes " * 60, ((0, 4), (200, 240)))
    empty, cut = read([Passage("", "yes", ((0, 3),)), long])
    assert empty is None
    assert cut[0].isfinite().all()
    assert cut[1].isnan().all()


def test_tokens_of_a_piece() -> None:
    """By their last character; a piece inside one token takes it; the end of the turn and the template take no part."""
    offsets = [(0, 0), (0, 3), (3, 7), (7, 12), (12, 12)]
    assert tokens_of((0, 7), offsets) == (1, 2)
    assert tokens_of((4, 12), offsets) == (2, 3)
    assert tokens_of((8, 10), offsets) == (3,)
    assert tokens_of((20, 30), offsets) == ()
