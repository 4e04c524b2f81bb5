"""An adapter's look at the rows before training, for starts that data decide (LoRA-GA).

What it sees is the run's own objective on the run's own first steps, with the policy still at its start: the gradients
are those that full training would take there. A run that is resumed reads the start that it kept, and looks at nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grainline import cpu, export
from grainline.adapters import _seam as adapters
from grainline.coupling import alone, judge
from grainline.errors import ModelError, RecipeError
from grainline.forward import voices
from grainline.types import Batch

if TYPE_CHECKING:
    from grainline.recipe import Recipe


def losses(
    recipe: Recipe, scorer: Any, reference: Any, forwards: Callable[[int], Sequence[Batch]], steps: int
) -> adapters.Losses:
    """The shares of the mean loss of the first steps: as many whole ones as hold the rows that the adapter wants.

    Args:
        forwards: step -> all of its forwards, on every process alike.
        steps: of the run; it looks at no others.

    Raises:
        RecipeError: the adapter wants rows, and how many a step has is measured only when it is there.
    """
    wanted = getattr(recipe.adapter, "looks", 0)
    if wanted and recipe.batch_size == "auto":
        raise RecipeError(
            "the adapter starts from the gradient of the first steps, and how many rows a step has is not known yet.",
            where="batch_size",
            instead="State batch_size or max_tokens as a number.",
        )
    count = 0 if recipe.batch_size == "auto" else min(steps, math.ceil(wanted / recipe.batch_size))

    def read() -> Iterator[Tensor]:
        objective, device = recipe.objective, next(scorer.parameters()).device
        training = scorer.training
        scorer.train()  # else layers are not recomputed where the recipe asks for it
        try:
            for step in range(count):
                batches = forwards(step)
                judged = judge(objective, scorer, reference, batches, alone(device), getattr(objective, "state", {}))
                for i, batch in enumerate(batches):
                    batch = batch.to(device)
                    policy, against = voices(scorer, reference, batch, objective.needs)
                    yield judged(i, batch, policy, against)[1] / count
        finally:
            scorer.train(training)
            for parameter in scorer.parameters():  # the objective's own modules have seen them too
                parameter.grad = None

    return read


def begin(adapter: Any, model: Any, look: adapters.Losses | None, kept: Path | None = None) -> None:
    """Give the fresh ``adapter`` on ``model`` the start that data decide, if it has such a one.

    Args:
        kept: a folder that may hold the start of a run that goes on, of whatever kind: it is read, and no row.

    Raises:
        ModelError: there are no rows to look at.
    """
    if kept is not None and kept.is_dir():
        if (resumed := getattr(adapter, "resumed", None)) is not None:
            resumed(model, export.read_tensors(kept))
        return
    if not getattr(adapter, "looks", 0):
        return
    if look is None:
        raise ModelError("its start is found on rows of the data, and there are none.", where="adapter: init")
    device = next(model.parameters()).device
    drawn = torch.random.fork_rng([device] if device.type == "cuda" else [])  # an adapter's dropout draws
    with drawn, cpu.full_width(device.type == "cpu"):
        adapter.studied(model, look)
    adapter.started(model)
