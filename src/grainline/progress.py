"""Progress people can watch: a bar with time left on a terminal, a line now and then elsewhere. On standard error."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")

_COLUMNS = (
    TextColumn("[bold]{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
    TextColumn("{task.fields[note]}"),
)
_SHOWN = {"loss": "loss {:.4f}", "rewards/accuracies": "accuracy {:.2f}", "rewards/margins": "margin {:+.3f}"}


def console() -> Console:
    return Console(stderr=True, highlight=False)


def say(sentence: str, *, quiet: bool = False) -> None:
    """One sentence to whoever watches."""
    if not quiet:
        console().print(sentence, markup=False, soft_wrap=True)


def track(items: Sequence[Item], description: str, *, quiet: bool = False) -> Iterator[Item]:
    """Iterate with a bar (on a terminal) or with a first and a last line (elsewhere)."""
    return follow(items, description, total=len(items), quiet=quiet)


def follow(
    items: Iterable[Item], description: str, *, total: int, done: int = 0, quiet: bool = False
) -> Iterator[Item]:
    """The same of items that are not there yet: ``total`` of them, ``done`` of which were seen to before."""
    if quiet or done >= total:
        yield from items
        return
    yield from _bar(items, description, total, done) if console().is_terminal else _lines(items, description)


def _bar(items: Iterable[Item], description: str, total: int, done: int) -> Iterator[Item]:
    with Progress(*_COLUMNS, console=console(), transient=True) as progress:
        task = progress.add_task(description, total=total, completed=done, note="")
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[Item], description: str) -> Iterator[Item]:
    began = time.monotonic()
    say(f"{description} ...")
    yield from items
    say(f"{description}: {time.monotonic() - began:.1f} s")


class ShowProgress:
    """A callback for the trainer (transformers' event names): steps, loss, accuracy, time left."""

    def __init__(self, description: str = "training") -> None:
        self.description = description
        self._progress: Progress | None = None
        self._said = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first, self._began = state.global_step, time.monotonic()
        if console().is_terminal:
            self._progress = Progress(*_COLUMNS, console=console())
            self._task = self._progress.add_task(
                self.description, total=state.max_steps, completed=state.global_step, note=""
            )
            self._progress.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "start/loss" in logs and "loss" not in logs:  # the first step's line holds them too
            apart, loss, constant = logs["start/policy_minus_reference"], logs["start/loss"], logs.get("start/constant")
            due = f" (the objective's constant: {constant:.6f})" if constant is not None else ""
            self._say(f"before step 1: policy and reference within {apart:.1e} nats a token; loss {loss:.6f}{due}")
            return
        note = "  ".join(form.format(logs[name]) for name, form in _SHOWN.items() if name in logs)
        if self._progress is not None:
            self._progress.update(self._task, completed=state.global_step, note=note)
        elif time.monotonic() - self._said > 15 or state.global_step in (1, state.max_steps):
            self._said = time.monotonic()
            spent = self._said - self._began
            left = spent / max(1, state.global_step - self._first) * (state.max_steps - state.global_step)
            say(f"{self.description} {state.global_step}/{state.max_steps}  {note}  {spent:.0f} s, {left:.0f} s left")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        for name, value in metrics.items():
            if name.endswith(("_rewards/accuracies", "_likelihood/accuracies")):  # single aspects are in the files
                low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
                text = f"step {state.global_step}: {name} {value:.3f} [{low:.3f}, {high:.3f}]"
                self._say(text)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away and give the cursor back, after an error too."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _say(self, sentence: str) -> None:
        if self._progress is not None:
            self._progress.console.print(sentence, markup=False, soft_wrap=True)
        else:
            say(sentence)
