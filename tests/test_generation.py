"""Answers in company are the answers alone; drawn ones follow the model's probabilities and their own luck."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from _build import adapted, model, numbers
from grainline.generation import Manner, Said, _parts, end_tokens, generate

UNEVEN = [numbers(count, f"prompt {count}") for count in (9, 1, 14, 5, 2, 9)]


def alone(causal: Any, prompt: list[int], count: int, stop: int = 2) -> Said:
    """The likeliest token, again and again, everything read anew each time."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(causal(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == stop:
                return Said(tuple(ids[len(prompt) : -1]), True)
    return Said(tuple(ids[len(prompt) :]), False)


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "mistral", "qwen3"])
def test_the_likeliest_answer_is_the_same_in_any_company(name: str, each: int) -> None:
    """Other prompts beside it, other lengths, sliding windows, positions that are learnt; read once for three."""
    causal = adapted(model(name, vocab_size=96), alpha=200.0)
    expected = [[alone(causal, prompt, 12)] * each for prompt in UNEVEN]
    assert generate(causal, UNEVEN, Manner(12), each=each) == expected
    for at_once in (1, 60):
        assert generate(causal, UNEVEN, Manner(12), each=each, at_once=at_once) == expected


def test_an_answer_ends_at_any_of_its_ends() -> None:
    causal = model("llama", vocab_size=96)
    whole = [alone(causal, prompt, 8, stop=-1).ids for prompt in UNEVEN]
    stop = whole[0][3]
    causal.generation_config.eos_token_id = None
    found = [said for (said,) in generate(causal, UNEVEN, Manner(8), ends=[stop])]
    assert found == [Said(ids[: ids.index(stop)], True) if stop in ids else Said(ids, False) for ids in whole]
    assert generate(causal, UNEVEN[:1], Manner(8)) == [[Said(whole[0], False)]]
    causal.generation_config.eos_token_id = [7, 5]
    assert end_tokens(causal, [6, 7]) == [5, 6, 7]


def test_a_prompt_is_read_once_for_all_of_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    causal, seen = model("llama", vocab_size=96), []
    causal.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True)
    generate(causal, [numbers(20, "a"), numbers(18, "b")], Manner(3, temperature=1.0), each=5)
    assert seen == [(2, 19), (10, 1), (10, 1), (10, 1)]


def test_drawn_answers_depend_on_prompt_number_and_seed_alone() -> None:
    causal, manner = model("llama", vocab_size=96), Manner(10, temperature=1.0)
    causal.generation_config.eos_token_id = None
    state = torch.get_rng_state()
    found = generate(causal, UNEVEN, manner, each=4)
    assert generate(causal, UNEVEN[::-1], manner, each=4, at_once=40)[::-1] == found
    assert [few[:2] for few in found] == generate(causal, UNEVEN, manner, each=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert generate(causal, UNEVEN, manner._replace(seed=1), each=4) != found
    assert found[0] == found[5]  # one prompt, asked twice
    assert len({said.ids for few in found for said in few}) == 20


class Fixed(torch.nn.Module):
    """Hands transformers' ``generate`` to a model whose next-token logits are the same everywhere."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.inner = model("llama", vocab_size=96)
        self.inner.register_forward_hook(lambda module, args, out: self._say(out, logits))
        self.device, self.generation_config = self.inner.device, self.inner.generation_config
        self.generate = self.inner.generate

    @staticmethod
    def _say(out: Any, logits: Tensor) -> Any:
        out.logits = logits.expand(*out.logits.shape[:2], -1)
        return out


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6), (2.0, 0.9)])
def test_draws_follow_the_probabilities(temperature: float, top_p: float) -> None:
    """2000 answers of one token: each count within 4.5 standard deviations, and none from outside the nucleus."""
    logits = torch.full((96,), -torch.inf)
    logits[10:18] = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5, -1.0, 0.2, 0.7])
    p = (logits.double() / temperature).softmax(-1)
    expected, mass = dict.fromkeys(range(96), 0.0), 0.0
    for token in p.argsort(descending=True).tolist():
        if mass < top_p:
            expected[token] = float(p[token])
            mass += expected[token]
    manner = Manner(1, temperature, top_p=top_p)
    (answers,) = generate(Fixed(logits), [[3, 4]], manner, each=2000, at_once=10**6)
    counts = Counter(answer.ids[0] for answer in answers)
    for token, share in expected.items():
        share /= mass
        assert abs(counts[token] - 2000 * share) <= 4.5 * (2000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize(
    "habits",
    [
        {"do_sample": True, "temperature": 3.0, "top_k": 2, "repetition_penalty": 9.0},
        {"num_beams": 2, "num_return_sequences": 2, "no_repeat_ngram_size": 1},
        {"min_length": 90, "min_new_tokens": 8, "guidance_scale": 3.0},
    ],
)
def test_a_models_own_habits_do_not_shape_an_answer(habits: dict[str, Any]) -> None:
    """Neither the likeliest one, nor several that share one reading of their prompt."""
    causal = model("llama", vocab_size=96)
    causal.generation_config.eos_token_id = alone(causal, UNEVEN[0], 4, stop=-1).ids[3]

    def answers() -> list[Any]:
        return [generate(causal, UNEVEN, Manner(8)), generate(causal, UNEVEN, Manner(8, 1.0), each=3)]

    expected = answers()
    assert any(said.ended for answer in expected for row in answer for said in row)
    causal.generation_config.update(**habits)
    assert answers() == expected


def test_prompts_of_like_length_go_together() -> None:
    lengths = [10, 90, 30, 85]
    parts = list(_parts(lengths, 1, 10, 200))
    assert parts == [([1, 3], range(1)), ([2, 0], range(1))]
    assert list(_parts(lengths, 4, 10, 200)) == [
        ([1], range(2)), ([1], range(2, 4)), ([3], range(2)), ([3], range(2, 4)), ([2], range(4)),
        ([0], range(4)),
    ]  # fmt: skip
    assert list(_parts([50], 3, 10, 1)) == [([0], range(k, k + 1)) for k in range(3)]
