"""Talking to a run: who the reference is, what the model reads, where answers end, and how one is stopped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from grainline import conversation, models
from grainline.errors import RunError
from grainline.generation import Manner
from grainline.runs import Run, align

if TYPE_CHECKING:
    from _toy import Toy

QUESTION = ({"role": "user", "content": "tell me of the sky"},)


def ids(toy: Toy, turns: Any, **more: Any) -> conversation.Asked:
    options: dict[str, Any] = {"window": 512, "manner": Manner(64)} | more
    return conversation.asked(models.load_tokenizer(toy.model), turns, **options)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 40).unsqueeze(0)).logits


def within(voice: conversation.Voice) -> torch.Tensor:
    with voice.within():
        return logits(voice.model)


# ------------------------------------------------------------------------------------------------- the two voices


def test_whoever_is_named_answers(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    """A run is its policy, an adapter's folder the same over the base that it names, a model itself."""
    policy = within(conversation.load(toy_run.recipe, toy_run.adapter).voices[1])
    base = logits(models.load(toy.model).model)
    for name, expected in ((toy_run.folder, policy), (toy_run.adapter, policy), (toy.model, base)):
        (voice,) = conversation.of(str(name)).voices
        assert torch.equal(within(voice), expected)
    assert (policy - base).abs().max() > 1e-3
    (half,) = conversation.of(str(toy_run.folder), dtype="bfloat16").voices
    assert next(half.model.parameters()).dtype == torch.bfloat16
    (tmp_path / "recipe.yaml").write_bytes((toy_run.folder / "recipe.yaml").read_bytes())
    with pytest.raises(RunError, match="no adapter yet"):
        conversation.of(str(tmp_path))


@pytest.mark.parametrize(
    ("choices", "remark"),
    [
        ({}, ""),
        ({"adapter": "none", "optimizer": "adamw:lr=1e-3"}, ""),
        ({"adapter": "lora:rank=4,init=pissa"}, "this adapter changes the base weights: "),
    ],
    ids=["lora", "none", "pissa"],
)
def test_the_reference_is_the_base(toy: Toy, tmp_path: Path, choices: dict[str, Any], remark: str) -> None:
    run = align(**toy.choices(tmp_path / "run", **choices))
    speakers = conversation.load(run.recipe, run.adapter)
    assert [voice.name for voice in speakers.voices] == ["reference", "policy"]
    assert speakers.remark.startswith(remark)
    assert bool(speakers.remark) == bool(remark)
    base = logits(models.load(toy.model).model)
    reference, policy = map(within, speakers.voices)
    torch.testing.assert_close(reference, base, atol=1e-6, rtol=0)
    assert (policy - base).abs().max() > 1e-3


def test_after_an_adapter_the_reference_is_where_training_started(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    choices = toy.choices(tmp_path / "run", model={"name": toy.model, "adapter": str(toy_run.adapter)})
    choices.pop("adapter")
    run = align(**choices)
    speakers = conversation.load(run.recipe, run.adapter)
    assert speakers.remark.startswith("training started from an adapter: ")
    (first,) = conversation.load(toy_run.recipe, toy_run.adapter, policy_only=True).voices
    reference, policy = map(within, speakers.voices)
    torch.testing.assert_close(reference, within(first), atol=1e-6, rtol=0)
    assert (policy - reference).abs().max() > 1e-3


def test_without_an_adapter(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no adapter yet"):
        conversation.load(toy_run.recipe, tmp_path / "adapter")


# --------------------------------------------------------------------------------------------- what the model reads


def test_the_template_is_applied_once_and_the_turn_ends_where_it_ended_in_training(toy: Toy) -> None:
    tokenizer = models.load_tokenizer(toy.model)
    turns = (*QUESTION, {"role": "assistant", "content": "glad"}, *QUESTION)
    found = ids(toy, turns)
    assert tokenizer.decode(found.ids) == (
        "<|im_start|>user\ntell me of the sky<|im_end|>\n<|im_start|>assistant\nglad<|im_end|>\n"
        "<|im_start|>user\ntell me of the sky<|im_end|>\n<|im_start|>assistant\n"
    )
    assert found.ends == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    assert not found.shortened


def test_a_conversation_beyond_the_window_loses_its_beginning(toy: Toy) -> None:
    turns = (*QUESTION, {"role": "assistant", "content": "glad " * 60}) * 3 + QUESTION
    found = ids(toy, turns, window=160)
    assert found.shortened
    assert len(found.ids) <= 160 - 64
    assert found.ids == ids(toy, QUESTION).ids
    with pytest.raises(RunError, match="64 new tokens leave no room for a question: the model's window is 60"):
        ids(toy, QUESTION, window=60)


def test_without_a_template_the_last_turn_is_plain_text(toy: Toy) -> None:
    tokenizer = models.load_tokenizer(toy.model)
    tokenizer.chat_template = None
    found = conversation.asked(tokenizer, QUESTION, window=512, manner=Manner())
    assert tokenizer.decode(found.ids) == "tell me of the sky"
    assert found.ends == (tokenizer.eos_token_id,)


# ---------------------------------------------------------------------------------------------------------- answers


@pytest.fixture
def policy(toy: Toy) -> tuple[conversation.Voice, Any]:
    """The untrained toy, which talks without an end."""
    loaded = models.load(toy.model)
    return conversation.Voice("policy", loaded.model, torch.no_grad), loaded.tokenizer


def test_what_comes_last_is_the_whole(toy: Toy, policy: Any) -> None:
    voice, tokenizer = policy
    asked = ids(toy, QUESTION)
    *pieces, whole = conversation.speak(voice, tokenizer, asked, Manner(20))
    assert len(pieces) > 1
    expected = voice.model.generate(input_ids=torch.tensor([asked.ids]), max_new_tokens=20, do_sample=False)
    assert whole == tokenizer.decode(expected[0, len(asked.ids) :], skip_special_tokens=True).strip()


def test_an_answer_ends_at_any_of_its_ends(toy: Toy, policy: Any) -> None:
    """The third token that it says is made an end of turn: nothing comes after it."""
    voice, tokenizer = policy
    asked = ids(toy, QUESTION)
    said = voice.model.generate(input_ids=torch.tensor([asked.ids]), max_new_tokens=3, do_sample=False)[0, -3:]
    *_, whole = conversation.speak(voice, tokenizer, asked._replace(ends=(int(said[2]),)), Manner(50))
    assert whole == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_a_seed_is_an_answer(toy: Toy, policy: Any) -> None:
    def answer(seed: int) -> str:
        voice, tokenizer = policy
        *_, whole = conversation.speak(voice, tokenizer, ids(toy, QUESTION), Manner(20, temperature=1.5, seed=seed))
        return whole

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)


def test_closing_stops_the_generation(toy: Toy, policy: Any) -> None:
    voice, tokenizer = policy
    steps: list[int] = []
    voice.model.register_forward_hook(lambda *_: steps.append(1))
    pieces = conversation.speak(voice, tokenizer, ids(toy, QUESTION), Manner(400))
    before = set(threading.enumerate())  # others, of the model's loading, may end meanwhile
    next(pieces)
    (worker,) = set(threading.enumerate()) - before
    pieces.close()
    assert 1 <= len(steps) < 200
    assert not worker.is_alive()


def test_an_error_while_generating_is_raised_here(toy: Toy, policy: Any) -> None:
    voice, tokenizer = policy

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    voice.model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(conversation.speak(voice, tokenizer, ids(toy, QUESTION), Manner(5)))
