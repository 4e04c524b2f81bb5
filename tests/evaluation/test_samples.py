"""Answers of policy and reference, against a loop that takes the likeliest token; drawn ones by their seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from _build import adapted, example, many, model
from grainline.evaluation import samples
from grainline.forward import Scorer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(96) if i != 2} | {"<end>": 2}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="w1"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>")


def greedy(causal: Any, prompt: tuple[int, ...], count: int) -> str:
    """The likeliest token, again and again, until the end of text."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(causal(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 2:
                break
    return " ".join(f"w{i}" for i in ids[len(prompt) :] if i != 2)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_policy_and_reference_are_greedy(name: str, tokenizer: Any) -> None:
    few = many(4)
    reference = [greedy(model(name, vocab_size=96), e.prompt, 7) for e in few]
    policy = [greedy(adapted(model(name, vocab_size=96), alpha=200.0), e.prompt, 7) for e in few]
    assert policy != reference
    scorer = Scorer(adapted(model(name, vocab_size=96), alpha=200.0))
    with scorer.plain() as own:
        rows = samples.compare(own, tokenizer, few, off=own.disable_adapter, max_new_tokens=7)
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["policy"] for row in rows] == policy
    assert [row["reference"] for row in rows] == reference


def test_an_answer_ends_at_the_end_of_text(tokenizer: Any) -> None:
    """A model that says <end> in third place: nothing after it is asked for, and the mark itself is not shown."""
    made = model("llama", vocab_size=96)
    prompt = many(1)[0].prompt
    wanted = greedy(made, prompt, 2)

    def end(module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            out.logits[0, -1, 2] = 1e9
        return out

    asked: list[int] = []
    made.register_forward_hook(end, with_kwargs=True)
    (answer,) = samples.generate(made, tokenizer, [example("x", prompt, [5], [6])], max_new_tokens=9)
    assert answer == wanted
    assert len(asked) == 3


def test_without_reference_policy_alone(tokenizer: Any) -> None:
    rows = samples.compare(model("llama", vocab_size=96), tokenizer, many(2), off=None, max_new_tokens=3)
    assert [sorted(row) for row in rows] == [["id", "policy", "prompt"]] * 2


def test_drawn_answers_depend_on_prompt_and_seed_alone(tokenizer: Any) -> None:
    made, few = model("llama", vocab_size=96), many(3)
    state = torch.get_rng_state()

    def drawn(rows: Any, **options: Any) -> list[str]:
        return samples.generate(made, tokenizer, rows, max_new_tokens=12, **options)

    first = drawn(few, temperature=1.0)
    assert drawn(few[::-1], temperature=1.0) == first[::-1]
    assert first != drawn(few, temperature=1.0, seed=1)
    assert first != drawn(few)
    assert torch.equal(torch.get_rng_state(), state)
