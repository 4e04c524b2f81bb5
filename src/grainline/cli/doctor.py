"""``grainline doctor``: what this installation can do."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer


def doctor(
    bench: Annotated[bool, typer.Option("--bench", help="Measure which dtype is fast here: seconds.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: findings, rates.")] = False,
) -> None:
    """Say what this installation can do and what is fast here.

    A line for each finding: ok, slow, missing or fault, and what to do. Exit status 1 if there is a fault.

    \b
    Examples:
      grainline doctor
      grainline doctor --bench
      grainline doctor --json
    """
    from grainline import cpu, machine
    from grainline import doctor as examination
    from grainline.cli import _print

    found = examination.examine()
    fault = any(finding.verdict == "fault" for finding in found)
    rates: dict[str, float] = {}
    if bench and not fault:
        device, auto = _device()
        with cpu.full_width(device == "cpu"):
            rates = machine.measure(device)
        found += examination.judged(rates, auto=auto)
    if json:
        _print.as_json({"findings": [finding._asdict() for finding in found], "rates": rates})
    else:
        wide = max(len(finding.about) for finding in found)
        for finding in found:
            typer.echo(f"{finding.verdict:<8} {finding.about:<{wide}}  {finding.said}")
            if finding.do:
                typer.echo(f"{'':<8} {'':<{wide}}  -> {finding.do}")
        counts = Counter(finding.verdict for finding in found)
        typer.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    raise typer.Exit(int(fault))


def _device() -> tuple[str, str]:
    """Where a run would go that says nothing, and in which dtype."""
    from grainline import models

    where = models.device()
    native = where.type == "cuda"
    if native:
        import torch

        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return str(where), "bfloat16" if native else "float32"
