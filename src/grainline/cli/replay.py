"""``grainline replay``: does a run give the same numbers again?"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from grainline.replay import Difference, Replay


def replay(
    run: Annotated[str, typer.Argument(help="The folder of a run.")],
    out: Annotated[str, typer.Option("--out", help="The new run's folder; else the run's with -replay.")] = "",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Repeat only so many steps.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: verdict, differences.")] = False,
) -> None:
    """Repeat a run from its folder and compare every number.

    Exit status: 0 if all are equal within rounding (1e-5), else 1.

    \b
    Examples:
      grainline replay runs/first
      grainline replay runs/first --steps 10 --out /tmp/again --json
    """
    from grainline import replay as repetition
    from grainline.cli import _print

    folder = Path(os.path.expanduser(run))
    to = Path(os.path.expanduser(out)) if out else folder.resolve().with_name(f"{folder.resolve().name}-replay")
    found = repetition.replay(folder, to, steps=steps)
    if json and _print.is_first_process():
        _print.as_json(_as_dict(found))
    elif _print.is_first_process():
        _tell(found, repetition.TOLERANCE)
    raise typer.Exit(int(found.compared.verdict == "different"))


def _as_dict(found: Replay) -> dict[str, Any]:
    compared = found.compared
    return {
        "verdict": compared.verdict,
        "folder": str(found.folder),
        "steps": compared.steps,
        "numbers": compared.numbers,
        "weights": compared.weights,
        "differences": {d.metric: _numbers(d) for d in compared.differences},
        "absent": compared.absent,
        "alone": compared.alone,
        "provenance": {name: {"run": old, "replay": new} for name, (old, new) in found.elsewhere.items()},
    }


def _numbers(difference: Difference) -> dict[str, float | str]:
    """Largest difference, step and both values; JSON has no infinity and no NaN."""
    found = {name: value for name, value in difference._asdict().items() if name != "metric"}
    return {name: value if math.isfinite(value) else str(value) for name, value in found.items()}


def _tell(found: Replay, tolerance: float) -> None:
    from grainline.cli import _print

    compared = found.compared
    if compared.differences:
        rows = [
            (d.metric, f"{d.largest:.1e}", str(d.step), f"{d.run:.9g}", f"{d.replay:.9g}") for d in compared.differences
        ]
        _print.table(("metric", "largest difference", "at step", "run", "replay"), rows)
    if found.elsewhere:
        _print.table(("not the same", "run", "replay"), [(k, str(a), str(b)) for k, (a, b) in found.elsewhere.items()])
    for what in compared.absent:
        _print.note(f"missing: {what}")
    if compared.alone:
        few = ", ".join(compared.alone[:3]) + (", ..." if len(compared.alone) > 3 else "")
        _print.note(f"only one of the two measures {few} ({len(compared.alone)} in all)")
    within = f" ({tolerance:.0e})" if compared.verdict == "equal within rounding" else ""
    weights = f", {compared.weights:,} weights of the adapter" if compared.weights else ""
    typer.echo(f"{compared.verdict}{within}: {compared.numbers:,} numbers of {compared.steps} steps{weights}")
    typer.echo(f"replay: {found.folder}")
