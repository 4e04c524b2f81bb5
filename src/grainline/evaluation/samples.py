"""What the model says: a few held-out prompts, answered greedily by policy and reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from grainline.types import Example


def generate(model: Any, tokenizer: Any, examples: Sequence[Example], *, max_new_tokens: int = 96) -> list[str]:
    """Greedy answers, one prompt at a time (no padding, so nothing to mask)."""
    import torch

    answers = []
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example.prompt], device=model.device)
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
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
    max_new_tokens: int = 96,
) -> list[dict[str, Any]]:
    """Policy beside reference on each prompt; ``off`` switches the adapter off (None: no reference)."""
    rows = [
        {"id": example.record.id, "prompt": example.record.prompt, "policy": answer}
        for example, answer in zip(
            examples, generate(model, tokenizer, examples, max_new_tokens=max_new_tokens), strict=True
        )
    ]
    if off is not None:
        with off():
            before = generate(model, tokenizer, examples, max_new_tokens=max_new_tokens)
        for row, answer in zip(rows, before, strict=True):
            row["reference"] = answer
    return rows
