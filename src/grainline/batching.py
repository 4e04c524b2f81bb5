"""Which rows make which optimizer step; and how many, where the recipe says ``batch_size: auto``.

A step is split into as many forwards as ``max_tokens`` asks for, so its rows cost no memory, and no memory limit bounds
them. What more rows can cost is a second forward. ``auto`` is therefore the largest step without one: the most rows of
which (nearly) every step fits into one forward of each process. Unlike ``max_tokens`` it decides what is learnt, so it
is settled before the first step and written into the run's recipe as a number, which a resumed run keeps.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from grainline.data import collate
from grainline.data.mismatch import mismatch
from grainline.data.order import Order
from grainline.errors import RecipeError
from grainline.progress import say
from grainline.recipe import Recipe
from grainline.types import Batch, Example, Layout

SECOND = 0.1
"""The share of steps that may take a second forward. Rows differ in length: with none, one long row among thousands
would decide how many stand in every step."""
LOOKED_AT = 100
"""Steps whose forwards are counted, evenly spaced; a longer run's are taken to be like them."""


class Filled(NamedTuple):
    """A number of rows, and what it rests on."""

    batch_size: int
    max_tokens: int  # of the forward that they fill; a row that is larger than this is a forward of its own
    processes: int
    second: float  # share of steps of which some process makes another forward
    rows: int  # that there are

    def __str__(self) -> str:
        why = "the most of which nine steps in ten are"
        if self.batch_size >= self.rows:
            why = "all rows there are; a step is"
        each = " in each process" if self.processes > 1 else ""
        why += f" one forward{each} at max_tokens={self.max_tokens}"
        return f"batch_size: {self.batch_size} ({why}). It decides what is learnt: see that the learning rate fits."


def settled(
    recipe: Recipe, examples: Sequence[Example], layout: Layout, processes: int = 1, *, quiet: bool = True
) -> Recipe:
    """``recipe`` with ``batch_size: auto`` as a number; ``max_tokens`` comes first, or what goes for it."""
    if recipe.batch_size != "auto":
        return recipe
    found = fill(recipe, examples, layout, processes)
    say(str(found), quiet=quiet)
    return dataclasses.replace(recipe, batch_size=found.batch_size)


def ordered(recipe: Recipe, examples: Sequence[Example]) -> tuple[Order, int]:
    """The stream of rows cut into steps, and how many steps the run has.

    As long as ``batch_size: auto`` is not settled there is one step of all rows: no run has others.
    """
    if recipe.batch_size == "auto":
        return Order(examples, batch_size=len(examples), sampler=recipe.sampler, seed=recipe.seed), 1
    order = Order(examples, batch_size=recipe.batch_size, sampler=recipe.sampler, seed=recipe.seed)
    return order, recipe.steps or order.steps(recipe.epochs)


def step_examples(recipe: Recipe, order: Order, step: int) -> list[Example]:
    """The rows of optimizer step ``step``, each with answers to other prompts where the objective needs them."""
    rows = order.step(step)
    return mismatch(rows) if "mismatched" in recipe.objective.needs else rows


def step_forwards(
    recipe: Recipe, order: Order, step: int, *, layout: Layout, processes: int = 1, only: int | None = None
) -> list[Batch]:
    """The rows of optimizer step ``step`` as forwards: of all processes, or of process ``only`` (0-based)."""
    examples = step_examples(recipe, order, step)
    parts = collate.pack(examples, max_tokens=recipe.tokens_at_once, layout=layout, parts=processes)
    rows = collate.speaking(recipe.objective.needs)
    mine = parts if only is None else parts[only::processes]
    return [collate.collate(part, rows=rows, layout=layout) for part in mine]


def fill(recipe: Recipe, examples: Sequence[Example], layout: Layout, processes: int = 1) -> Filled:
    """The most rows (not more than there are) of which a step is one forward of ``tokens_at_once`` in each process.

    Forwards are counted as :func:`~grainline.data.collate.pack` lays them out: two processes hold what two forwards
    do, which is less than their tokens in sum where rows are large or uneven.
    """
    most = len(examples)

    def second(rows: int) -> float:
        return _second(dataclasses.replace(recipe, batch_size=rows), examples, layout, processes)

    bound = processes
    while bound < most and second(bound) <= SECOND:
        bound *= 2
    fits = bisect.bisect_right(range(processes, min(bound, most) + 1), SECOND, key=second)
    rows = processes + max(0, fits - 1)
    return Filled(rows, recipe.tokens_at_once, processes, second(rows), most)


def _second(recipe: Recipe, examples: Sequence[Example], layout: Layout, processes: int) -> float:
    """Share of the run's steps of which some process makes more than one forward."""
    order, count = ordered(recipe, examples)
    looked_at = [i * count // min(count, LOOKED_AT) for i in range(min(count, LOOKED_AT))]

    def rounds(step: int) -> int:
        rows = step_examples(recipe, order, step)
        return collate.rounds(rows, max_tokens=recipe.tokens_at_once, layout=layout, parts=processes)

    try:
        more = [rounds(step) > 1 for step in looked_at]
    except RecipeError:  # too few rows to find an answer to another prompt: a step needs more of them
        return 0.0
    return sum(more) / len(more)
