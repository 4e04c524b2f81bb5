"""``max_tokens: auto``: how many tokens one forward may hold, found out on the run's own model, rows and device.

The longest rows go forward and backward with the adapter on, a few of them and then twice as many; memory grows as a
line through the two, and the budget is where that line meets the limit. On CUDA the answer is then tried, and lowered
until it fits; a process that asks a computer for too much memory is killed, so there the line has to do.

What is found is settled once, written into the run's recipe, and changes speed and memory, never a number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from accelerate.utils import gather_object
from torch import nn

from grainline import cpu, footprint, machine
from grainline.batching import step_examples
from grainline.coupling import alone, judge
from grainline.data import collate
from grainline.data.order import Order
from grainline.engine import Engine, Reference
from grainline.errors import RecipeError
from grainline.forward import voices
from grainline.optimizers import _seam as optimizers
from grainline.recipe import Recipe
from grainline.types import Example, Layout, Tagged

FREE = {"cuda": 0.9, "cpu": 0.5}
"""``memory: auto``: the share of what is free on the device. A computer's own memory has others who want some."""
MARGIN = {"cuda": 0.95, "cpu": 0.8}
"""The share of a limit that is planned with. In a computer's memory blocks of many sizes leave gaps (measured: a third
of what a forward takes), which two measurements of like rows do not show."""
ENOUGH_ON_CPU = 1024
"""Tokens beyond which a processor gains nothing. Three steps of four pairs, SmolLM2-135M on two cores: 11.9 s with 512,
11.3 s with 1024, 11.6 s with 2048 (and at most 2.5, 3.7 and 4.5 GB)."""
LOOKED_AT = 200
"""Steps whose size is counted; a longer run's are taken to be like them."""
SMALL = 256
"""Tokens of the first forward that is measured, unless the longest row has more."""
ROUND = 64


class Settled(NamedTuple):
    """A budget, and what it rests on."""

    max_tokens: int
    limit: int  # bytes that the process may hold
    expected: int  # bytes that it will hold at a forward of this size
    why: str  # what stopped it from being larger

    def __str__(self) -> str:
        held = f"about {self.expected / 1e9:.3g} GB of {self.limit / 1e9:.3g} GB"
        return f"max_tokens: {self.max_tokens} ({held}; {self.why})"


class _Point(NamedTuple):
    tokens: int
    peak: int  # bytes


Measure = Callable[[Sequence[Example]], _Point]


def settle(recipe: Recipe, engine: Engine, order: Order, steps: int, reference: Reference | None) -> Settled:
    """The largest budget that fits ``recipe.memory``, on all processes; the adapter must be attached.

    Raises:
        RecipeError: not even the longest row fits.
    """
    rows = list({id(row): row for step in range(steps) for row in step_examples(recipe, order, step)}.values())
    rows.sort(key=lambda row: -collate.tokens([row], engine.layout))
    kind = "cuda" if engine.accelerator.device.type == "cuda" else "cpu"
    limit = _limit(recipe, engine)
    allowed = round(MARGIN[kind] * limit) - _state(recipe, engine, steps)
    largest = -(-_largest_step(recipe, order, steps, engine.layout) // engine.accelerator.num_processes)
    gain = ENOUGH_ON_CPU if kind == "cpu" and recipe.memory == "auto" else largest
    measure = _measuring(engine, reference)
    size, expected = _fitting(rows, min(largest, gain), allowed, engine.layout, measure)
    if kind == "cuda":
        size = _tried(rows, size, engine.layout, measure)
    why = "no step is larger" if size >= largest else "more gains nothing" if size >= gain else "more would not fit"
    found = Settled(size, limit, expected + round(MARGIN[kind] * limit) - allowed, why)
    everyone = gather_object([found]) if engine.accelerator.num_processes > 1 else [found]
    return min(everyone, key=lambda one: one.max_tokens)


def _fitting(rows: Sequence[Example], wanted: int, allowed: int, layout: Layout, measure: Measure) -> tuple[int, int]:
    """At most ``wanted`` tokens (but the longest row in any case) that take no more than ``allowed`` bytes; and how
    many bytes they take. ``rows``: the longest first."""
    longest = collate.tokens(rows[:1], layout)
    try:
        first = second = measure(_first(rows, max(longest, SMALL), layout))
    except torch.OutOfMemoryError:
        raise _too_long(longest, f"more than the {allowed / 1e9:.3g} GB there are") from None
    if wanted > first.tokens:
        try:
            second = measure(_first(rows, 2 * first.tokens, layout))
        except torch.OutOfMemoryError:
            wanted = first.tokens
    more = second.tokens - first.tokens
    each = max(0.0, (second.peak - first.peak) / more) if more > 0 else 0.0

    def peak(tokens: int) -> float:
        return first.peak + each * (tokens - first.tokens)

    if peak(longest) > allowed:
        raise _too_long(longest, f"{peak(longest) / 1e9:.3g} GB; {allowed / 1e9:.3g} GB may be planned with")
    fits = first.tokens + int((allowed - first.peak) / each) if each else wanted
    size = max(longest, wanted if fits >= wanted else fits // ROUND * ROUND)
    return size, round(peak(size))


def _too_long(longest: int, takes: str) -> RecipeError:
    return RecipeError(
        f"the longest row, {longest} tokens, takes {takes}.",
        where="memory",
        instead="Allow more, lower max_length, or set model.gradient_checkpointing=true.",
    )


def _tried(rows: Sequence[Example], size: int, layout: Layout, measure: Measure) -> int:
    """``size``, or less where a forward of it runs out of memory."""
    longest = collate.tokens(rows[:1], layout)
    while size > longest:
        try:
            measure(_first(rows, size, layout))
            return size
        except torch.OutOfMemoryError:
            size = max(longest, int(0.8 * size) // ROUND * ROUND)
        torch.cuda.empty_cache()
    return size


def _measuring(engine: Engine, reference: Reference | None) -> Measure:
    """rows -> (tokens, most bytes held) of one forward and backward as a step makes them; nothing else is changed."""

    def measure(rows: Sequence[Example]) -> _Point:
        scorer, objective, device = engine.scorer, engine.recipe.objective, engine.accelerator.device
        batch = collate.collate(rows, rows=engine.rows, layout=engine.layout).to(device)
        training = scorer.training
        drawn = torch.random.fork_rng([device] if device.type == "cuda" else [])  # an adapter's dropout draws
        with drawn, cpu.full_width(device.type == "cpu"):
            footprint.forget_peak(device)
            try:
                judged = judge(
                    objective, scorer.train(), reference, [batch], alone(device), getattr(objective, "state", {})
                )
                policy, against = voices(scorer, reference, batch, objective.needs)
                judged(0, batch, policy, against)[1].backward()
                return _Point(batch.ids.numel(), footprint.peak(device))
            finally:
                for parameter in scorer.parameters():
                    parameter.grad = None
                scorer.train(training)

    return measure


def _limit(recipe: Recipe, engine: Engine) -> int:
    """Bytes that this process may hold."""
    if recipe.memory_bytes is not None:
        return recipe.memory_bytes
    device = engine.accelerator.device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.memory_allocated(device) + round(FREE["cuda"] * (free + unused))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    known = machine.memory()
    if known is None:
        raise RecipeError("what is free is not known here.", where="memory", instead="Set it, for example to 8GB.")
    held = footprint.resident()
    return held + round(FREE["cpu"] * max(0, min(known[1], machine.memory_limit() - held)) / here)


def _state(recipe: Recipe, engine: Engine, steps: int) -> int:
    """Bytes that the optimizer will keep from its first step on."""
    shapes = [
        Tagged(name, nn.Parameter(torch.empty_like(tensor, device="meta")), role)
        for name, tensor, role in engine.trainable()
    ]
    return footprint.optimizer_state(optimizers.build(recipe.optimizer, shapes, steps=steps), shapes)


def _first(rows: Sequence[Example], tokens: int, layout: Layout) -> list[Example]:
    """The first rows that have at most so many tokens together, and at least one row."""
    taken = [rows[0]]
    for row in rows[1:]:
        if collate.tokens([*taken, row], layout) > tokens:
            break
        taken.append(row)
    return taken


def _largest_step(recipe: Recipe, order: Order, steps: int, layout: Layout) -> int:
    looked_at = range(0, steps, max(1, steps // LOOKED_AT))
    return max(collate.tokens(step_examples(recipe, order, step), layout) for step in looked_at)
