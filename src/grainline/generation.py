"""Answers, many at once: a prompt is read once for all of its answers, and no answer depends on its company.

transformers generates; what is added here is the company. Prompts of like length go together, padded on the left, where
their masks hide it. Of several answers to one prompt, the prompt is read once and its cache repeated. An answer that is
drawn has luck of its own, one uniform number a token, made from the seed, its prompt and its number: so it is the same
alone and among others, and two models that answer one prompt draw with the same luck.

In float32 that holds token for token, up to a tie; in half precision the rounding of a batch can tip a close choice.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from grainline.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 8192
"""Positions, prompts and answers together, that are held at once: this many times the model's cache of one token."""
_PAD = 0  # never seen: masked on the left, cut off on the right
_PLAIN: dict[str, Any] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "min_new_tokens": 0,  # counts above min_length
    "guidance_scale": 1.0,
}
"""The likeliest token, each time: said, so that a model's own generation configuration does not say otherwise."""


class Manner(NamedTuple):
    """How answers are made. The model's own generation configuration adds where answers end and what is never said
    (``suppress_tokens``), but no way of drawing or searching, no penalty and no least length."""

    max_new_tokens: int = 256
    temperature: float = 0.0  # 0 = the likeliest token each time
    seed: int = 0
    top_p: float = 1.0  # draw from the likeliest tokens that together have this probability


class Said(NamedTuple):
    """One answer in tokens."""

    ids: tuple[int, ...]  # without the token that ended it
    ended: bool  # False: there was more to say


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    manner: Manner,
    *,
    each: int = 1,
    ends: Sequence[int] = (),
    at_once: int = AT_ONCE,
) -> list[list[Said]]:
    """``each`` answers to each of ``prompts``.

    Args:
        model: a transformers causal LM in evaluation mode, or a PeftModel around one, with its own attention.
        prompts: tokens; at least one each.
        each: answers a prompt. The likeliest is the same each time, so more than one makes sense for drawn ones.
        ends: tokens that end an answer, beside those of the model's generation configuration.
        at_once: positions held at once; sets memory and speed, never the answers.
    """
    import torch

    from grainline import cpu

    stops = end_tokens(model, ends)
    found: list[dict[int, Said]] = [{} for _ in prompts]
    with torch.no_grad(), cpu.full_width(model.device.type == "cpu"):
        for together, numbers in _parts([len(p) for p in prompts], each, manner.max_new_tokens, at_once):
            rows = iter(_answer(model, [prompts[i] for i in together], numbers, manner, stops))
            for i in together:
                found[i] |= {number: next(rows) for number in numbers}
    return [[said[number] for number in range(each)] for said in found]


def options(prompts: Sequence[Sequence[int]], numbers: range, manner: Manner, stops: Sequence[int]) -> dict[str, Any]:
    """Arguments of transformers' ``generate`` for answers of these ``numbers`` to each of ``prompts``."""
    from transformers import GenerationConfig, LogitsProcessorList

    config = GenerationConfig(
        max_new_tokens=manner.max_new_tokens,
        eos_token_id=list(stops) or None,
        pad_token_id=_PAD,
        use_cache=True,
        **_PLAIN,
    )
    if manner.temperature == 0:
        return {"generation_config": config}
    luck = [_luck(manner, prompt, number) for prompt in prompts for number in numbers]
    return {"generation_config": config, "logits_processor": LogitsProcessorList([_Draw(luck, manner)])}


def room(window: int, manner: Manner) -> int:
    """Tokens that a prompt may have, so that an answer still fits the model's window.

    Raises:
        RunError: hardly any.
    """
    space = window - manner.max_new_tokens
    if space < 2:
        raise RunError(
            f"{manner.max_new_tokens} new tokens leave no room for a question: the model's window is {window}.",
            where="max_new_tokens",
            instead=f"Choose at most {window // 2}.",
        )
    return space


def window(model: Any) -> int:
    """Tokens that the model can look back on."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**20)


def end_tokens(model: Any, more: Sequence[int] = ()) -> list[int]:
    """The tokens at which an answer of ``model`` ends."""
    own = model.generation_config.eos_token_id
    return sorted({*more, *(own if isinstance(own, list) else [own] if own is not None else [])})


def _parts(lengths: Sequence[int], each: int, room: int, at_once: int) -> Iterator[tuple[list[int], range]]:
    """Which prompts are answered together, and which of their answers: the longest first, so that little is padded."""
    waiting = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while waiting:
        rows = max(1, at_once // (lengths[waiting[0]] + room))
        several = max(1, rows // each)
        for first in range(0, each, rows):
            yield waiting[:several], range(first, min(each, first + rows))
        waiting = waiting[several:]


def _answer(
    model: Any, prompts: Sequence[Sequence[int]], numbers: range, manner: Manner, stops: Sequence[int]
) -> list[Said]:
    """One answer a row: those to the first prompt, those to the second..."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[_PAD] * (longest - len(p)) + list(p) for p in prompts], device=model.device)
    there = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    how = options(prompts, numbers, manner, stops)
    if len(numbers) > 1 and longest > 1:
        how["past_key_values"] = _read(model, ids[:, :-1], there[:, :-1], len(numbers))
    ids, there = (x.repeat_interleave(len(numbers), 0) for x in (ids, there))
    made = model.generate(input_ids=ids, attention_mask=there, **how)[:, longest:].tolist()
    stopped = [next((t for t, token in enumerate(row) if token in stops), None) for row in made]
    return [Said(tuple(row[:stop]), stop is not None) for row, stop in zip(made, stopped, strict=True)]


def _read(model: Any, ids: Tensor, there: Tensor, times: int) -> Any:
    """The cache of these tokens, read once and repeated. ``generate`` knows each architecture's positions."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=1, pad_token_id=_PAD, use_cache=True, return_dict_in_generate=True, **_PLAIN
    )
    cache = model.generate(input_ids=ids, attention_mask=there, generation_config=config).past_key_values
    cache.batch_repeat_interleave(times)
    return cache


def _luck(manner: Manner, prompt: Sequence[int], number: int) -> Tensor:
    """(max_new_tokens,) uniform in [0, 1), of this answer alone."""
    import torch

    said = f"{manner.seed} {number} ".encode() + array("q", prompt).tobytes()
    seed = int.from_bytes(hashlib.sha256(said).digest()[:7], "big")
    return torch.rand(manner.max_new_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class _Draw:
    """A logits processor that leaves one token a row: the one that this step's luck falls on."""

    def __init__(self, luck: Sequence[Tensor], manner: Manner) -> None:
        import torch

        self.luck, self.manner, self.step = torch.stack(list(luck)), manner, 0  # luck: (rows, max_new_tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        import torch

        exact = torch.float32 if scores.device.type == "mps" else torch.float64
        p = (scores.to(exact) / self.manner.temperature).softmax(-1)
        if self.manner.top_p < 1:
            p, token = p.sort(dim=-1, descending=True, stable=True)
            p = p * (p.cumsum(-1) - p < self.manner.top_p)  # the token that reaches top_p is still in
        mass = p.cumsum(-1)
        luck = self.luck[:, self.step, None].to(mass) * mass[:, -1:]
        place = torch.searchsorted(mass, luck, right=True).clamp(max=p.shape[-1] - 1)
        self.step += 1
        drawn = token.gather(-1, place) if self.manner.top_p < 1 else place
        return torch.full_like(scores, float("-inf")).scatter(-1, drawn, 0.0)
