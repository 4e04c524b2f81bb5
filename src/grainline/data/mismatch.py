"""Answers to other prompts, for objectives that compare an answer with one that has nothing to do with its question."""

from __future__ import annotations

from collections.abc import Sequence

from grainline.errors import RecipeError
from grainline.types import Example


def mismatch(examples: Sequence[Example]) -> list[Example]:
    """Each of a step's ``examples`` with the answers of the next one that has another prompt (the last goes on with the
    first) as its ``others``: as many as it has answers of its own.

    It depends on the step's rows and their order alone, not on how they are split.

    Raises:
        RecipeError: all rows of the step have one prompt.
    """
    return [example._replace(others=_others(examples, i)) for i, example in enumerate(examples)]


def _others(examples: Sequence[Example], i: int) -> tuple:
    own = examples[i]
    around = (examples[(i + k) % len(examples)] for k in range(1, len(examples)))
    for other in around:
        if other.prompt != own.prompt:
            return tuple(other.answers[k % len(other.answers)] for k in range(len(own.answers)))
    raise RecipeError(
        f"a step of {len(examples)} rows holds one prompt only; answers to another are needed.",
        where="batch_size",
        instead="Make it larger, or choose sampler=shuffle.",
    )
