"""What the model says: a few held-out prompts, answered by policy and reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from grainline import generation
from grainline.generation import Manner
from grainline.types import Example


def generate(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    max_new_tokens: int = 96,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """One answer a prompt.

    ``temperature`` 0 takes the likeliest token each time. Above, each answer is drawn with luck of its own (top-p
    0.95), so that it depends on its prompt alone, and two models draw with the same luck.
    """
    manner = Manner(max_new_tokens, temperature, seed, top_p=0.95)
    said = generation.generate(model, [example.prompt for example in examples], manner)
    return [tokenizer.decode(list(answer.ids), skip_special_tokens=True).strip() for (answer,) in said]


def compare(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    off: Callable[[], AbstractContextManager[Any]] | None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Policy beside reference on each prompt; ``off`` switches the adapter off (None: no reference).

    ``options`` are those of :func:`generate`.
    """
    rows = [
        {"id": example.record.id, "prompt": example.record.prompt, "policy": answer}
        for example, answer in zip(examples, generate(model, tokenizer, examples, **options), strict=True)
    ]
    if off is not None:
        with off():
            before = generate(model, tokenizer, examples, **options)
        for row, answer in zip(rows, before, strict=True):
            row["reference"] = answer
    return rows
