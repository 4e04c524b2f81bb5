"""Several ways of doing the same steps, timed in turn, so that a busy machine slows all alike."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import _machine
import torch
from _sides import Step, take_gradient

DISTURBED = 0.2  # cores used by others
Row = dict[str, Any]  # one timing
Rows = dict[str, list[Row]]  # by side
Run = Callable[[int], tuple[Row, torch.Tensor]]
"""A side that does a step: what it took, and the adapter's gradient."""


def race(sides: Mapping[str, Run], options: Any, *, apart: Collection[str] = (), yardstick: Run | None = None) -> Rows:
    """Rows of timings a side. Losses and gradients are compared with ``yardstick``, or else with the first side, but
    for sides ``apart``, whose steps hold other rows.

    A timing that others disturbed is taken again, up to ``options.tries`` times, and the least disturbed one counts.
    Ctrl-C ends the race with the steps that all sides have done; sums over other rows than the others' are then void.
    """
    rows: Rows = {name: [] for name in sides}
    try:
        for i in range(options.warm + options.steps):
            found = _step(sides, i, options, apart, yardstick)
            for name, row in found.items():
                rows[name].append(row)
    except KeyboardInterrupt:
        options.steps = len(rows[next(iter(rows))])
        if not options.steps:
            raise
        say(f"stopped: what follows is of {options.steps} steps")
        return {name: own for name, own in rows.items() if name not in apart}
    return rows


def _step(
    sides: Mapping[str, Run], i: int, options: Any, apart: Collection[str], yardstick: Run | None
) -> dict[str, Row]:
    order = list(sides)
    say(f"step {i - options.warm + 1} of {options.steps}" if i >= options.warm else "warm-up")
    turn = i % len(order)  # each side goes first in its turn
    truth = _told("yardstick", yardstick, i) if yardstick is not None else None
    found = {name: _told(name, sides[name], i) for name in order[turn:] + order[:turn]}
    if i < options.warm:
        return {}
    right, gradient = truth or found[order[0]]
    best = {}
    for name, (row, own) in found.items():
        if name not in apart:
            row["loss_away"] = abs(row["loss"] - right["loss"])
            row["gradient_away"] = float((own - gradient).norm() / gradient.norm())
        for _ in range(options.tries - 1):
            if row["others"] > DISTURBED:
                row = min(row, row | _told(name, sides[name], i)[0], key=lambda row: row["others"])
        best[name] = row
    return {name: best[name] for name in order}


def _told(name: str, run: Run, i: int) -> tuple[Row, torch.Tensor]:
    row, gradient = run(i)
    say(f"{name}: {row['seconds']:.2f} s, loss {row['loss']:.6f}, others {row['others']:.2f} cores")
    return row, gradient


def here(side: Step, device: torch.device) -> Run:
    """``side`` in this process."""

    def run(i: int) -> tuple[Row, torch.Tensor]:
        clock = _machine.Clock(device)
        loss = side.run(i)
        row = clock.read()._asdict() | {"loss": loss, "peak_mib": _machine.peak_mib(device)}
        return row, take_gradient(side.model)

    return run


def elsewhere(command: Sequence[str], names: Sequence[str]) -> dict[str, Run]:
    """Sides in a process of their own, which :func:`serve` answers for there; it stands still while others run."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answers = process.stdin, (line for line in process.stdout if line.startswith(_ANSWER))

    def answer() -> Any:
        if (line := next(answers, None)) is None:
            raise SystemExit(f"This process ended early, for want of memory perhaps: {' '.join(command)}")
        return json.loads(line.removeprefix(_ANSWER))

    def run(name: str, i: int) -> tuple[Row, torch.Tensor]:
        print(name, i, file=asked, flush=True)
        row, file = answer()
        return row, torch.load(file)

    answer()  # ready
    return {name: functools.partial(run, name) for name in names}


_ANSWER = "answer: "  # before a line that is no library's own remark


def serve(sides: Mapping[str, Run]) -> None:
    """Do the steps that are asked for, until none are."""
    print(f"{_ANSWER}0", flush=True)
    with tempfile.NamedTemporaryFile() as file:
        for line in sys.stdin:
            name, i = line.split()
            row, gradient = sides[name](int(i))
            torch.save(gradient.cpu(), file.name)
            print(f"{_ANSWER}{json.dumps([row, file.name])}", flush=True)


def compare(rows: list[Row], first: list[Row], tokens: int) -> dict[str, Any]:
    """What a side's timings come to beside the first side's."""
    both = list(zip([row["seconds"] for row in first], [row["seconds"] for row in rows], strict=True))
    calm = [max(a["others"], b["others"]) <= DISTURBED for a, b in zip(first, rows, strict=True)]
    quiet = [pair for pair, is_calm in zip(both, calm, strict=True) if is_calm]
    same_rows = all("loss_away" in row for row in rows)

    def ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
        return sum(a for a, _ in pairs) / sum(b for _, b in pairs) if pairs else None

    return {
        "seconds": mean(own for _, own in both),
        "tokens_a_second": tokens / sum(own for _, own in both),
        "speedup": ratio(both),
        "speedup_median": median(a / b for a, b in both) if same_rows else None,
        "speedup_cpu": sum(row["cpu"] for row in first) / sum(row["cpu"] for row in rows),
        "speedup_quiet": ratio(quiet) if same_rows or len(quiet) == len(both) else None,
        "quiet": len(quiet),
        "loss_away": max(row["loss_away"] for row in rows) if same_rows else None,
        "gradient_away": max(row["gradient_away"] for row in rows) if same_rows else None,
        "others": mean(row["others"] for row in rows),
        "peak_mib": max(row["peak_mib"] for row in rows),
        "steps": rows,
    }


def heading(result: Mapping[str, Any]) -> list[str]:
    """What was measured, and where."""
    settings, machine = result["settings"], result["machine"]
    return [
        "",
        f"{settings['model']}, {settings['dtype']}, {settings['data']}, LoRA r=16 on all linear layers, "
        f"{settings['steps']} steps of {settings['pairs']} pairs of at most {settings['max_length']} tokens",
        f"{machine['processor']} ({machine['instructions']}), {machine['threads']} threads, "
        f"torch {machine['torch']}, trl {machine['trl']}, grainline {machine['grainline']}",
        "tokens: " + ", ".join(f"{name} {count}" for name, count in result["tokens"].items()),
        "",
    ]


def table(titles: Mapping[str, str], found: Mapping[str, Any], columns: Mapping[str, tuple[str, str, str]]) -> str:
    """One line a side; a column is its head: (key, format, what it means)."""
    wide = max(map(len, titles.values())) + 1
    lines = [" " * wide + "".join(f"{head:>9}" for head in columns)]
    for name, side in found.items():
        cells = [(side.get(key), form) for key, form, _ in columns.values()]
        said = "".join(f"{'-' if v is None else format(v, form):>9}" for v, form in cells)
        lines.append(f"{titles[name]:{wide}}{said}")
    return "\n".join([*lines, "", *(f"{head}: {said}" for head, (_, _, said) in columns.items())])


def write(result: Mapping[str, Any], file: Path | None) -> None:
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
