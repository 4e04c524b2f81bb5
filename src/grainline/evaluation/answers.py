"""Answers of one speaker to many questions, in as large parts as the memory allows, and how far they are from another.

A conversation of several turns is asked turn after turn, with the speaker's own answers in it. Each answer depends on
its prompt, the seed and the weights alone (:mod:`grainline.generation`), so that an interrupted measurement goes on
with the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from grainline import generation, machine
from grainline.data.encode import Encoder
from grainline.evaluation.prompt_files import Question
from grainline.evaluation.speakers import Speaker, Subject
from grainline.generation import Manner, Said
from grainline.types import Answer, Record

PROMPTS = 16
"""Questions that are answered between two looks at the journal."""
FREE = 0.3
"""The share of what is free that keys and values of prompts and answers may fill."""
LEAST = 256
"""Positions below which a memory that is full is no matter of parts."""


class Asked(NamedTuple):
    """A question in tokens."""

    id: str
    prompt: Any  # as text or turns
    ids: tuple[int, ...]
    ends: tuple[int, ...]


def answer(
    speaker: Speaker,
    subject: Subject,
    questions: Sequence[Question],
    manner: Manner,
    *,
    draw: int = 0,
    asked: Callable[[Any], Any] = lambda prompt: prompt,
) -> list[dict[str, Any]]:
    """One line an answer: ``id``, ``group`` (its question), ``draw``, ``prompt``, ``text``, ``tokens``, ``ended``, and
    ``ids`` (of both).

    ``draw``: which answer to each question, from 0; its luck is that of the seed ``draw`` further on. ``asked`` writes
    a condition into a prompt.

    Raises:
        RunError: the model's window has no room for an answer of ``manner``.
    """
    found: list[dict[str, Any]] = []
    waiting = [(q, q.prompt, 1) for q in questions]
    with speaker.plain() as model:
        while waiting:
            space = generation.room(generation.window(model), manner)
            encoded = [encode(subject, q.id, asked(prompt), space) for q, prompt, _ in waiting]
            made = _said(model, encoded, manner._replace(seed=(manner.seed + draw) % 2**32))
            further: list[tuple[Question, Any, int]] = []
            for (q, prompt, turn), one, said in zip(waiting, encoded, made, strict=True):
                text = subject.tokenizer.decode(list(said.ids), skip_special_tokens=True).strip()
                end = one.ends if said.ended or not said.ids else ()
                line = {"id": name(q.id, turn, draw), "group": q.id, "draw": draw, "prompt": _plain(one.prompt)}
                line |= {"text": text, "tokens": len(said.ids), "ended": said.ended}
                found.append(line | {"ids": [list(one.ids), [*said.ids, *end]]})
                if turn <= len(q.further):
                    more = ({"role": "assistant", "content": text}, {"role": "user", "content": q.further[turn - 1]})
                    further.append((q, (*prompt, *more), turn + 1))
            waiting = further
    return found


def name(question: str, turn: int = 1, draw: int = 0) -> str:
    """The id of an answer: the question's, with its turn from the second and its draw from the first further on."""
    return question + (f"/{turn}" if turn > 1 else "") + (f"#{draw}" if draw else "")


def encode(subject: Subject, id: str, prompt: Any, space: int) -> Asked:
    """A prompt as the model reads it: at most ``space`` tokens, its oldest turns gone where there are more."""
    turns = prompt if subject.tokenizer.chat_template or isinstance(prompt, str) else prompt[-1]["content"]
    encoder = Encoder(subject.tokenizer, max_length=space)
    example = encoder(Record(id, turns, (Answer("Yes."),), label=True, where=f"the prompt of {id}"))
    ids = subject.place(example.prompt, f"the prompt of {id}") if subject.place else example.prompt
    return Asked(id, prompt, tuple(ids), (example.answers[0].ids[-1],))


def positions_at_once(model: Any) -> int:
    """How many positions' keys and values fit into :data:`FREE` of the memory that is free; generation's own bound at
    most."""
    import torch

    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * width * next(model.parameters()).element_size()
    if model.device.type == "cuda":
        free = torch.cuda.mem_get_info(model.device)[0]
    else:
        free = (machine.memory() or (0, 2**62))[1]
    return max(1, min(generation.AT_ONCE, int(FREE * free / each)))


def _said(model: Any, asked: Sequence[Asked], manner: Manner) -> list[Said]:
    """One answer each, in smaller parts where the memory ends."""
    import torch

    at_once, ends = positions_at_once(model), sorted({end for one in asked for end in one.ends})
    while True:
        try:
            found = generation.generate(model, [one.ids for one in asked], manner, ends=ends, at_once=at_once)
            return [said for (said,) in found]
        except torch.OutOfMemoryError:
            if at_once <= LEAST:
                raise
            at_once //= 2
            torch.cuda.empty_cache()


def _plain(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]
