"""Tasks of EleutherAI's lm-evaluation-harness (the extra ``lm-eval``) on a model that is in memory, before and after.

The harness loads its tasks' data itself, from the hub or its cache; without network only those that are in the cache,
or tasks described by a ``.yaml`` file of yours that names local data, can be measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grainline.errors import RunError

RESAMPLES = 1000
"""Of the standard errors that have no formula."""


def measure(
    model: Any, tokenizer: Any, tasks: Sequence[str], *, rows: int = 0, seed: int = 0
) -> dict[str, dict[str, float]]:
    """task -> {metric: value}, the harness's own metrics with their ``*_stderr``.

    Args:
        tasks: names the harness knows, or paths of ``.yaml`` files that describe a task.
        rows: of each task; 0 = all.

    Raises:
        RunError: it is not installed, a task is unknown, or its data cannot be read.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise RunError(
            "lm-evaluation-harness is not installed.",
            where="tasks",
            instead="pip install grainline[lm-eval], or leave out tasks.",
        )
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    described = files(tasks)
    manager = TaskManager(include_path=[str(Path(task).expanduser().parent) for task in described] or None)
    named = [_name(Path(task).expanduser()) if task in described else task for task in tasks]
    unknown = [task for task in named if task not in manager.all_tasks]
    if unknown:
        raise RunError(
            f"the harness knows no task {unknown[0]!r}.", where="tasks", instead="lm-eval ls tasks lists them."
        )
    try:
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer),
            tasks=named,
            limit=rows or None,
            task_manager=manager,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            bootstrap_iters=RESAMPLES,  # with 0 it leaves out the standard errors of plain means too
            log_samples=False,
        )
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"the harness failed: {said}", where="tasks", instead="Without network a task's data must be in the cache."
        ) from error
    return {task: _numbers(values) for task, values in found["results"].items()}


def files(tasks: Sequence[str]) -> list[str]:
    """Those of ``tasks`` that are files of the user's own."""
    return [task for task in tasks if task.endswith((".yaml", ".yml"))]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """``acc,none`` -> ``acc``; only numbers."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and "," in key
    }


def _name(file: Path) -> str:
    """What a task's file calls it."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"unreadable: {error.strerror}.", where=str(file), instead="Name a task's file.") from error
    for line in text.splitlines():
        if line.startswith("task:"):
            return line.partition(":")[2].strip().strip("\"'")
    raise RunError("it names no task.", where=str(file), instead="Write task: NAME.")
