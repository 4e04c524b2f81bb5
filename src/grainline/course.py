"""A run's forwards, laid out without its model: which rows make which step, and how many tokens they are.

Steps are counted as a run makes them, by the functions that a run calls. Of a long run evenly spaced steps stand for
all; that the figures are then means is said by ``Steps.laid_out``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from grainline import footprint
from grainline.batching import ordered, settled, step_examples, step_forwards
from grainline.data import collate
from grainline.engine import looking, reference_kind
from grainline.evaluation import preferences
from grainline.footprint import Size
from grainline.prepare import Prepared
from grainline.trainer import Plan, schedule
from grainline.types import Batch, Example, Layout

if TYPE_CHECKING:
    from grainline.recipe import Recipe

STEPS_LAID_OUT = 400
"""Steps whose forwards are really laid out; of a longer run so many, evenly spaced, stand for all."""
ROWS_LAID_OUT = 4000
"""The same for rows that are read once, by the reference or in an evaluation."""


class Steps(NamedTuple):
    """The run's steps. Counted, in the layout that is tried first."""

    steps: int
    rows: int  # in a step
    epochs: float
    layout: Layout
    laid_out: int  # steps that were really laid out; fewer than all: the others were taken to be like them
    tokens: int  # through the model, in all steps; what a run logs as num_tokens
    tokens_of_step: float
    tokens_of_epoch: float
    alone: int  # tokens in all steps, were each answer read with a prompt of its own
    forwards: int
    largest: int  # tokens of the largest forward


class Course(NamedTuple):
    """A run's forwards, laid out: what the estimates are made of."""

    steps: Steps
    sizes: Size  # of all steps together
    once: Size  # what the reference reads before training
    held_out: Size  # what one look at the held-out data reads
    looks: float  # forwards over the held-out data in the whole run
    largest: Batch
    each_step: (
        float  # forwards without gradient beside each one that is trained on: of the reference, and to look first
    )


def lay_out(recipe: Recipe, prepared: Prepared, layout: Layout, processes: int = 1) -> Course:
    """The forwards of the run's steps, of its reference and of its evaluations, in all processes together.

    Raises:
        RecipeError: no such schedule, or steps of fewer rows than processes.
    """
    recipe = settled(recipe, prepared.train, layout, processes)
    order, count = ordered(recipe, prepared.train)
    schedule(Plan(steps=count, schedule=recipe.schedule, warmup=recipe.warmup))  # a misspelt one is found now
    looked_at = range(count) if count <= STEPS_LAID_OUT else _spaced(range(count), STEPS_LAID_OUT)
    sizes, largest, forwards = [], None, 0
    for step in looked_at:
        batches = step_forwards(recipe, order, step, layout=layout, processes=processes)
        sizes += [footprint.size(batch) for batch in batches]
        forwards += len(batches)
        largest = max([*([largest] if largest else []), *batches], key=lambda batch: batch.ids.numel())
    assert largest is not None
    share = count / len(looked_at)
    total = footprint.add(sizes, share)
    rows = count * order.batch_size
    steps = Steps(
        steps=count,
        rows=order.batch_size,
        epochs=rows / len(prepared.train),
        layout=layout,
        laid_out=len(looked_at),
        tokens=total.tokens,
        tokens_of_step=total.tokens / count,
        tokens_of_epoch=total.tokens / rows * len(prepared.train),
        alone=total.alone,
        forwards=round(forwards * share),
        largest=largest.ids.numel(),
    )
    kind, needed = reference_kind(recipe), "reference" in recipe.objective.needs
    held_out = [_read_once(recipe, rows, layout) for rows in prepared.held_out.values()]
    used = [
        row
        for step in range(-(-min(rows, len(prepared.train)) // order.batch_size))
        for row in step_examples(recipe, order, step)
    ]
    once = [_read_once(recipe, used[: len(prepared.train)], layout), *held_out] if kind == "cache" else []
    live = float(needed and kind != "cache")  # the reference is asked anew each time
    looks = recipe.evaluation.every and count // recipe.evaluation.every
    looks += not looks or bool(count % recipe.evaluation.every)
    start = 2 * live if needed else 1  # the first look is at the reference itself
    beside = live + (1 + live) * getattr(recipe.objective, "coupled", False)  # coupled rows are all read once before
    read = footprint.add(once), footprint.add(held_out)
    return Course(steps, total, *read, start + looks * (1 + live), largest, beside)


def _read_once(recipe: Recipe, examples: Sequence[Example], layout: Layout) -> Size:
    """Forwards over all of ``examples``, as the reference and evaluations make them."""
    some = _spaced(examples, ROWS_LAID_OUT)
    rows = looking(collate.speaking(recipe.objective.needs), some)
    batches = preferences.forwards(some, rows=rows, layout=layout, max_tokens=recipe.tokens_at_once)
    return footprint.add([footprint.size(batch) for batch in batches], len(examples) / len(some))


def _spaced(items: Sequence[Any], most: int) -> Sequence[Any]:
    return items if len(items) <= most else [items[i * len(items) // most] for i in range(most)]
