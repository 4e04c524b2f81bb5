"""How a run was started: its processes, by torchrun or alone, and the trackers it names."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from grainline import models
from grainline.errors import RecipeError, RunError, nearest
from grainline.recipe import Recipe


def accelerator_for(recipe: Recipe, **options: Any) -> Accelerator:
    """Accelerate, with as many processes as were started: left to itself it takes a machine without GPU for one."""
    device = models.device(recipe.model.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
    accelerator = Accelerator(cpu=device.type == "cpu", **options)
    _check_launch(accelerator)
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", 1)):
        raise RunError(
            f"{os.environ['WORLD_SIZE']} processes were started, {accelerator.num_processes} would train together.",
            where="torchrun",
            instead="Start one, or set model.device to cpu or cuda.",
        )
    return accelerator


def _check_launch(accelerator: Accelerator) -> None:
    """What accelerate was told elsewhere (its configuration, the environment) must not change numbers in silence."""
    if accelerator.distributed_type.value not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise RunError(
            f"{accelerator.distributed_type.value} of its own is not supported.",
            where="accelerate",
            instead="Start processes with torchrun; with shard=true they share the frozen weights (FSDP2).",
        )
    if accelerator.mixed_precision != "no" or accelerator.gradient_accumulation_steps != 1:
        raise RunError(
            "its configuration asks for mixed precision or gradient accumulation.",
            where="accelerate",
            instead="Set model.dtype and batch_size in the recipe instead.",
        )


def check_trackers(recipe: Recipe) -> None:
    """Accelerate leaves out trackers whose package is missing, without a word."""
    there = [str(tracker.value) for tracker in get_available_trackers()]
    for name in recipe.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise RecipeError(f"no tracker {name!r}.", where="trackers", instead=nearest(name, LOGGER_TYPE_TO_CLASS))
        if name not in there:
            raise RecipeError(
                "its package is not installed.", where=f"trackers: {name}", instead=f"pip install {name}."
            )
