"""What the model says: a few held-out prompts, answered by policy and reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

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
    """One answer a prompt, one at a time (no padding, so nothing to mask).

    ``temperature`` 0 takes the likeliest token each time. Above, each answer is drawn from its own start at ``seed``
    (top-p 0.95), so that it depends on its prompt alone, and two models draw with the same luck.
    """
    import torch

    how: dict[str, Any] = {"do_sample": False}
    if temperature:
        how = {"do_sample": True, "temperature": temperature, "top_p": 0.95}
    answers = []
    with torch.no_grad(), torch.random.fork_rng():
        for example in examples:
            torch.manual_seed(seed)
            ids = torch.tensor([example.prompt], device=model.device)
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                **how,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )
            answers.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return answers


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
