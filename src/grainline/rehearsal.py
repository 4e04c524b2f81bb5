"""A few real steps of a run, to say what it will take: ``grainline plan --probe``.

The model is loaded, placed and given its adapter as a run does it; then the loop itself takes the recipe's first two
steps in turn, the first one to warm up, until two were taken and a second has passed. Seconds of the whole run are
those of what was measured times the FLOPs of what is to come (:mod:`grainline.forecast`). Nothing is left behind but
reference log-probs, which the run finds in its cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from grainline import footprint, models
from grainline.batching import ordered, settled, step_examples, step_forwards
from grainline.data.order import Order
from grainline.engine import Engine, Reference
from grainline.first_look import losses
from grainline.forecast import Estimate, forecast
from grainline.launch import accelerator_for
from grainline.optimizers import _seam as optimizers
from grainline.prepare import Prepared
from grainline.trainer import Plan, fit
from grainline.types import Batch, Layout

if TYPE_CHECKING:
    from grainline.recipe import Recipe

FIRST = 2
"""Steps of the recipe whose rows are taken."""
MOST = 20
"""Steps taken at most, warm-up included; more than two only while they are fast."""
ENOUGH = 1.0
"""Seconds of measured steps that are enough."""


class Rehearsal(NamedTuple):
    """What was measured, and what follows for the run. Seconds and bytes."""

    layout: Layout
    why: str  # how exact each layout was that was tried
    start: float  # until the layout is found: measured
    step: float  # one step, mean of those measured
    steps: int  # how many were measured
    tokens_per_second: float  # in those steps
    peak: int  # the most memory held in those steps
    reference: float  # before training, if nothing of it is cached
    training: float  # all steps
    evaluation: float  # all looks at held-out data
    memory: int  # the most the run will hold

    @property
    def total(self) -> float:
        """Seconds of the run, without answers sampled at its end and without writing."""
        return self.start + self.reference + self.training + self.evaluation


class _Enough(Exception):
    """The rehearsal is over."""


class _Clock:
    """Notes how long each step took, from end to end, and leaves the loop when enough is known."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        if len(self.seconds) >= MOST or (len(self.seconds) >= FIRST and sum(self.seconds[1:]) >= ENOUGH):
            raise _Enough


def rehearse(recipe: Recipe, prepared: Prepared, estimate: Estimate) -> tuple[Estimate, Rehearsal]:
    """Take a few steps of ``recipe``; the estimate comes back for the layout that the weights allow.

    Raises:
        GrainlineError: what a run would say at its start or in its first steps.
    """
    began = time.perf_counter()
    recipe = dataclasses.replace(recipe, shard=False)  # one process is tried, which holds all weights
    engine = Engine.build(recipe, models.load(recipe.model).model, prepared.train, accelerator_for(recipe))
    start = time.perf_counter() - began
    if engine.layout != estimate.steps.layout:
        estimate = forecast(dataclasses.replace(recipe, layout=engine.layout), prepared)
    recipe = settled(recipe, prepared.train, engine.layout)
    order, _ = ordered(recipe, prepared.train)
    few = [step_forwards(recipe, order, step, layout=engine.layout) for step in range(FIRST)]
    sizes = [footprint.size(batch) for batch in few[1]]
    amount = _amount(estimate)

    def read() -> float:
        """Seconds for each unit of work without gradient."""
        return _seconds(lambda: [_score(engine, batch) for batch in few[1]]) / amount(footprint.add(sizes), False)

    frozen = read()
    reference = engine.reference(
        [row for step in range(FIRST) for row in step_examples(recipe, order, step)], quiet=True
    )
    before, held = footprint.peak(engine.accelerator.device), footprint.resident()
    with tempfile.TemporaryDirectory() as folder:
        look = losses(recipe, engine.scorer, reference, lambda step: few[step], FIRST)
        engine.attach(Path(folder), look)
        adapted = read()
        footprint.forget_peak(engine.accelerator.device)
        clock = _take(recipe, engine, reference, order, Path(folder))
    peak, course = footprint.peak(engine.accelerator.device), estimate.course
    done = [footprint.add([footprint.size(batch) for batch in few[i % FIRST]]) for i in range(1, len(clock.seconds))]
    seconds = sum(clock.seconds[1:])
    largest = max(batch.ids.numel() for forwards in few for batch in forwards)
    held = held if engine.scorer.causal.device.type == "cpu" else sum(estimate.memory.weights.values())
    return estimate, Rehearsal(
        layout=engine.layout,
        why=engine.why,
        start=start,
        step=seconds / len(done),
        steps=len(done),
        tokens_per_second=sum(size.tokens for size in done) / seconds,
        peak=peak,
        reference=frozen * amount(course.once, False),
        training=seconds / amount(footprint.add(done), True) * amount(course.sizes, True),
        evaluation=adapted * course.looks * amount(course.held_out, False),
        memory=max(before, _at_largest(estimate, peak, held, estimate.steps.largest / largest)),
    )


def _take(recipe: Recipe, engine: Engine, reference: Reference | None, order: Order, folder: Path) -> _Clock:
    """The loop's own steps over the rows of the first ones in turn, laid out each time as a run does."""
    clock = _Clock()
    with contextlib.suppress(_Enough):
        fit(
            engine.scorer,
            recipe.objective,
            optimizers.build(recipe.optimizer, engine.trainable(), steps=MOST),
            lambda step: step_forwards(recipe, order, step % FIRST, layout=engine.layout),
            Plan(steps=MOST, schedule="constant", max_grad_norm=recipe.max_grad_norm),
            folder,
            reference=reference,
            callbacks=[clock],
            accelerator=engine.accelerator,
            tolerance=engine.start_tolerance,
        )
    return clock


def _amount(estimate: Estimate) -> Callable[[footprint.Size, bool], float]:
    """(size, with backward?) -> how much work: FLOPs, or tokens where FLOPs are not known."""
    cost = estimate.cost
    if cost is None:
        return lambda size, train: float(size.tokens)
    return lambda size, train: cost.flops(size, train=train)


def _score(engine: Engine, batch: Batch) -> float:
    with torch.no_grad():
        return float(engine.scorer(batch.to(engine.accelerator.device)).token.sum())  # waits for the device


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _at_largest(estimate: Estimate, peak: int, held: int, larger: float) -> int:
    """``peak`` of the steps measured, as it will be at a forward that is ``larger`` times theirs."""
    fixed = estimate.memory.adapter + estimate.memory.logits
    return peak + round(max(0.0, larger - 1) * max(0, peak - held - fixed))
