"""The loop. It reads top to bottom, and never asks a method its name.

One optimizer step is an ordered list of rows. They are split into forwards that fit in memory, over all processes; each
forward adds its share to the gradient of

    sum over terms of  coefficient * sum(weight * value) / sum(weight * count)

where both sums run over the **whole step and all processes**, so how a step is split changes nothing but speed. Counts
depend on masks and weights alone: they are read off before the first forward, at log-probs of zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainerState, get_scheduler

from grainline import checkpoint, cpu, sharding
from grainline.checks import check_finite, check_start, clip
from grainline.coupling import judge
from grainline.errors import RecipeError
from grainline.events import Events, Stop
from grainline.forward import voices
from grainline.objectives._seam import Objective
from grainline.optimizers import _seam as optimizers
from grainline.reduction import Metrics, add, means, measure, whole
from grainline.types import Batch, LogProbs


class Plan(NamedTuple):
    """The run's numbers, resolved: nothing is left to choose."""

    steps: int
    schedule: str = "linear"
    warmup: float = 0.0  # steps; below 1, a share of all steps
    max_grad_norm: float = 1.0  # 0 = do not clip
    evaluate_every: int = 0  # 0 = at the end only
    best: str | None = None  # metric; a leading minus means lower is better
    patience: int = 0  # evaluations without a new best; 0 = never stop early
    save_every: int = 0  # 0 = at the end only
    keep: int = 2


class Outcome(NamedTuple):
    """How a run ended."""

    step: int  # steps done
    finished: bool  # False after Ctrl-C or SIGTERM: resume goes on from here
    best: Path | None  # the checkpoint with the best metric, where one was asked for
    metrics: Metrics  # of the last evaluation


def fit(
    scorer: nn.Module,
    objective: Objective,
    optimizer: Optimizer,
    batches: Callable[[int], Sequence[Batch]],
    plan: Plan,
    folder: Path,
    *,
    reference: Callable[[Batch], LogProbs] | None = None,
    evaluate: Callable[[], Metrics] | None = None,
    callbacks: Sequence[Any] = (),
    accelerator: Accelerator | None = None,
    resume: bool = False,
    tolerance: float = 1e-3,
) -> Outcome:
    """Train until ``plan.steps``, writing ``metrics.jsonl`` and ``checkpoints/`` into ``folder``.

    Args:
        scorer: batch -> LogProbs of the policy, a module whose trainable parameters are the optimizer's.
        objective: (policy, reference, facts, heads) -> Losses.
        batches: step -> this process's share of the step, as forwards.
        reference: batch -> LogProbs of the reference, or None where the objective needs none.
        evaluate: () -> metrics, called on all processes.
        callbacks: objects with any of transformers' event methods (on_train_begin, on_step_end, on_log, ...).
        resume: go on from the newest checkpoint in ``folder``.
        tolerance: how far the policy may be from the reference before the first step, nats a token; infinite for an
            adapter that starts apart.

    Raises:
        NonFiniteError: a loss or the gradient is NaN or infinite; names the rows.
        InvariantError: before the first step the policy is not the reference, or the loss not the objective's constant.
    """
    accelerator = accelerator or Accelerator()
    rate = schedule(plan)
    peak = [group["lr"] for group in optimizer.param_groups]
    shared_out = sharding.is_sharded(scorer)
    optimizer = accelerator.prepare(optimizer)
    scorer = scorer if shared_out else accelerator.prepare(scorer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    log, saved = folder / "metrics.jsonl", folder / "checkpoints"
    state = TrainerState(max_steps=plan.steps, is_world_process_zero=accelerator.is_main_process)
    emit = Events(callbacks, state, model=accelerator.unwrap_model(scorer), optimizer=optimizer)
    facts: dict[str, Any] = {"best": None, "best_step": None, "stale": 0, "rows": 0, "tokens": 0}
    facts["state"] = dict(getattr(objective, "state", {}))
    metrics: Metrics = {}

    def save(step: int) -> None:
        if accelerator.is_main_process:
            with optimizers.result(optimizer):
                checkpoint.save(saved, step, accelerator.unwrap_model(scorer), optimizer, facts)
            checkpoint.prune(saved, keep=plan.keep, spare=[_best(saved, facts)])
            emit("on_save")
        accelerator.wait_for_everyone()

    def early() -> bool:
        return bool(plan.patience and facts["stale"] >= plan.patience)

    first = 0
    if resume and (found := checkpoint.newest(saved)) is not None:
        facts |= checkpoint.restore(found, accelerator.unwrap_model(scorer), optimizer)
        first = facts.pop("step")
    if accelerator.is_main_process:
        checkpoint.cut(log, after=first)
    accelerator.wait_for_everyone()
    state.global_step = first
    emit("on_train_begin")
    scorer.train()
    done, began = first, time.monotonic()
    with Stop() as stop, optimizers.training(optimizer):
        for step in range(first, first if early() else plan.steps):
            for group, lr in zip(optimizer.param_groups, peak, strict=True):
                group["lr"] = lr * rate(step)
            emit("on_step_begin")
            forwards = batches(step)
            judged = judge(objective, scorer, reference, forwards, accelerator, facts["state"])
            sums: dict[str, Tensor] = {}
            start: Metrics = {}
            with sharding.in_step(scorer), cpu.full_width(accelerator.device.type == "cpu"):
                for i, batch in enumerate(forwards):
                    batch = batch.to(accelerator.device)
                    last = i == len(forwards) - 1
                    with nullcontext() if last else accelerator.no_sync(scorer):
                        policy, against = voices(scorer, reference, batch, objective.needs)
                        losses, loss = judged(i, batch, policy, against)
                        if step == 0 and i == 0 and against is not None:
                            start = check_start(policy, against, losses, objective, tolerance)
                            emit("on_log", logs=start)
                        check_finite(losses, batch, step)
                        # Gradients are averaged over processes; the sum is what is meant.
                        accelerator.backward(loss * accelerator.num_processes)
                    add(sums, measure(whole(objective, policy, against, batch, facts["state"]), policy, batch, loss))
            facts["state"] = judged.state
            if shared_out:
                sharding.average(parameters)
            norm = clip(accelerator, parameters, plan.max_grad_norm, step)
            optimizer.step()
            optimizer.zero_grad()

            done = state.global_step = step + 1
            entry = {"step": done, **means(sums, accelerator)}
            facts["rows"] += int(entry.pop("rows"))
            facts["tokens"] += int(entry.pop("tokens"))
            entry |= {
                "grad_norm": norm,
                "learning_rate": max(peak) * rate(step),  # of the fastest role
                "num_tokens": facts["tokens"],
                "num_rows": facts["rows"],
            }
            entry |= {"seconds": time.monotonic() - began, **start, **facts["state"]}
            if accelerator.is_main_process:
                checkpoint.append(log, entry)
            accelerator.log({k: v for k, v in entry.items() if k != "step"}, step=done)
            emit("on_step_end")
            emit("on_log", logs=entry)

            due = plan.evaluate_every and done % plan.evaluate_every == 0
            better = False
            if evaluate is not None and (done == plan.steps or due or emit.control.should_evaluate):
                with optimizers.result(optimizer):
                    metrics = _evaluate(evaluate, scorer, accelerator, log, done)
                emit("on_evaluate", metrics=metrics)
                better = plan.best is not None and _improved(plan.best, metrics, facts, done)
            # A stop waits for the evaluation that is due: a resumed run would never hold it.
            stopped = stop.asked(accelerator) or emit.control.should_training_stop or early()
            due = plan.save_every and done % plan.save_every == 0
            if better or stopped or due or emit.control.should_save or done == plan.steps:
                save(done)
            if stopped:
                break
    emit("on_train_end")
    return Outcome(done, done == plan.steps or early(), _best(saved, facts), metrics)


# ------------------------------------------------------------------------------------------- schedule, best, events


def schedule(plan: Plan) -> Callable[[int], float]:
    """step -> factor of the peak learning rate: transformers' schedules are pure functions of the step.

    Raises:
        RecipeError: no such schedule, or one that looks at more than the step.
    """
    warmup = round(plan.warmup * plan.steps) if plan.warmup < 1 else round(plan.warmup)
    nobody = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    try:
        factor = get_scheduler(plan.schedule, nobody, warmup, plan.steps).lr_lambdas[0]
    except (ValueError, AttributeError, TypeError) as error:
        raise RecipeError(
            f"{plan.schedule!r} is not a schedule of the step alone", where="schedule", instead="Try linear or cosine."
        ) from error
    return lambda step: float(factor(step))


def _evaluate(
    evaluate: Callable[[], Metrics], scorer: nn.Module, accelerator: Accelerator, log: Path, step: int
) -> Metrics:
    scorer.eval()
    metrics = evaluate()
    scorer.train()
    if accelerator.is_main_process:
        checkpoint.append(log, {"step": step, **metrics})
    accelerator.log(metrics, step=step)
    return metrics


def _improved(best: str, metrics: Metrics, facts: dict[str, Any], step: int) -> bool:
    name, sign = best.removeprefix("-"), -1 if best.startswith("-") else 1
    if name not in metrics:
        raise RecipeError(f"no metric {name!r}", where="evaluation.best", instead=f"There are: {', '.join(metrics)}.")
    if facts.get("metric") != best:  # a resumed run may look at something else
        facts |= {"metric": best, "best": None, "best_step": None, "stale": 0}
    if facts["best"] is None or sign * metrics[name] > sign * facts["best"]:
        facts |= {"best": metrics[name], "best_step": step, "stale": 0}
        return True
    facts["stale"] += 1
    return False


def _best(saved: Path, facts: Mapping[str, Any]) -> Path | None:
    return None if facts["best_step"] is None else saved / f"step-{facts['best_step']:06d}"
