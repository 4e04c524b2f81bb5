"""Answers one after another: conversations, draws, conditions, and parts that fit the memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from grainline import generation
from grainline.data.conditions import Condition, conditioned
from grainline.errors import RunError
from grainline.evaluation import answers
from grainline.evaluation.prompt_files import Question
from grainline.evaluation.speakers import Subject
from grainline.generation import Manner


def ask(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)


QUESTIONS = [Question("a", ask("tell me of the sea")), Question("b", ask("sky"), ("and the sun?", "why?"))]


def said(voices: Subject, questions: Any = QUESTIONS, who: str = "policy", **options: Any) -> dict[str, dict[str, Any]]:
    manner = Manner(6, options.pop("temperature", 0.0), 0)
    lines = answers.answer(getattr(voices, who), voices, questions, manner, **options)
    return {line["id"]: line for line in lines}


def test_turns_come_after_the_speakers_own_answers(voices: Subject) -> None:
    found = said(voices)
    assert list(found) == ["a", "b", "b/2", "b/3"]
    assert [line["group"] for line in found.values()] == ["a", "b", "b", "b"]
    first, second = found["b"]["text"], found["b/2"]["text"]
    assert [turn["content"] for turn in found["b/3"]["prompt"]] == ["sky", first, "and the sun?", second, "why?"]
    alone = said(voices, [Question("x", tuple(found["b/3"]["prompt"]))])["x"]
    assert (alone["text"], alone["ids"]) == (found["b/3"]["text"], found["b/3"]["ids"])


def test_ids_are_those_of_the_chat_template(voices: Subject) -> None:
    line = said(voices)["a"]
    wanted = voices.tokenizer.apply_chat_template(
        list(ask("tell me of the sea")), add_generation_prompt=True, return_dict=False
    )
    assert line["ids"][0] == wanted
    assert line["tokens"] == len(line["ids"][1]) - line["ended"]
    with voices.policy.plain() as model:
        (greedy,) = generation.generate(model, [wanted], Manner(6), ends=[voices.tokenizer.eos_token_id])[0]
    assert line["ids"][1][: line["tokens"]] == list(greedy.ids)


def test_draws_have_luck_of_their_own(voices: Subject) -> None:
    first, second = (said(voices, temperature=1.0, draw=draw) for draw in (0, 1))
    assert list(second) == ["a#1", "b#1", "b/2#1", "b/3#1"]
    assert first["a"]["ids"] != second["a#1"]["ids"]
    assert said(voices, QUESTIONS[1:], temperature=1.0)["b"]["ids"] == first["b"]["ids"]  # its company does not matter


def test_a_condition_is_read_as_in_training(voices: Subject) -> None:
    condition = Condition({"honesty": 5.0}, "tokens", "user")
    line = said(voices, QUESTIONS[:1], asked=lambda prompt: conditioned(prompt, condition))["a"]
    assert line["prompt"] == [{"role": "user", "content": "<honesty: 5> tell me of the sea"}]


def test_no_room(voices: Subject) -> None:
    with pytest.raises(RunError, match=r"600 new tokens leave no room.*at most 256"):
        list(answers.answer(voices.policy, voices, QUESTIONS, Manner(600)))


def test_a_memory_that_is_full_makes_smaller_parts(voices: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, own, sizes = said(voices), generation.generate, []

    def full(*args: Any, at_once: int, **options: Any) -> Any:
        sizes.append(at_once)
        if at_once > 3000:
            raise torch.OutOfMemoryError
        return own(*args, at_once=at_once, **options)

    monkeypatch.setattr(generation, "generate", full)
    assert said(voices) == wanted
    assert sizes[0] > sizes[1] > sizes[2]
    monkeypatch.setattr(answers, "LEAST", 5000)
    with pytest.raises(torch.OutOfMemoryError):
        said(voices)


def test_positions_by_hand(voices: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 layers of keys and values, 2 heads of 8 float64 each: 512 bytes a position."""
    monkeypatch.setattr(answers.machine, "memory", lambda: (10**9, 512_000))
    with voices.policy.plain() as model:
        assert answers.positions_at_once(model) == int(0.3 * 512_000 / (2 * 2 * 2 * 8 * 8))
        monkeypatch.setattr(answers.machine, "memory", lambda: None)
        assert answers.positions_at_once(model) == generation.AT_ONCE
