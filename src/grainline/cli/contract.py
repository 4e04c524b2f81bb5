"""``grainline contract``: what an adapter promises, tried on a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from grainline.contract import Finding
    from grainline.upkeep import Upkeep

MEASURE = "lora:rank=16"
"""What costs are stated in."""


def contract(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Adapters as in a recipe, or presets.")],
    model: Annotated[
        str, typer.Option("--model", help="Alias, folder or hub id; without it a small random Llama is made.")
    ] = "",
    tokens: Annotated[str, typer.Option("--tokens", metavar="ROWSxTOKENS", help="What a timed step reads.")] = "4x128",
    cost: Annotated[bool, typer.Option(help="Time steps beside LoRA of rank 16.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: a list, one entry an adapter.")] = False,
) -> None:
    """Try an adapter's promises on a model, and see its cost.

    Fresh is the base, off is the base bit for bit, merged is the adapted model, saved and loaded through PEFT is the
    same, and so on. One adapter gives a line for each promise, several give a line each. Exit status 1 if a promise is
    broken; "excused" is what the adapter says beforehand, or refuses with a reason.

    \b
    Examples:
      grainline contract oft
      grainline contract bone:block=64 --model smollm2-135m-instruct
      grainline contract lora miss bone peft:type=HRA --json
    """
    from grainline import contract as contracts
    from grainline.cli import _print
    from grainline.errors import UserError

    shape = [int(part) for part in tokens.split("x") if part.isdigit() and int(part) > 0]
    if len(shape) != 2:
        raise UserError(f"--tokens {tokens!r} is not ROWSxTOKENS.", instead="Write e.g. 4x128.")
    specs = [_spec(text, model) for text in adapters]
    base = contracts.base(model)
    found = []
    for text, spec in zip(adapters, specs, strict=True):
        subject = contracts.Subject(spec, base, contracts.tokens(base, 2, 16))
        findings = contracts.examine(subject)
        upkeep, ratios = _upkeep(subject, shape) if cost else (None, {})
        found.append((text, findings, upkeep, ratios))
    if json:
        _print.as_json([_as_dict(*entry) for entry in found])
    elif len(found) == 1:
        _one(*found[0])
    else:
        _print.table(
            ("adapter", "promises", "parameters", "step", "memory", "file"), [_line(*entry) for entry in found]
        )
    raise typer.Exit(int(any(finding.verdict == "broken" for _, findings, _, _ in found for finding in findings)))


def _spec(text: str, model: str) -> Any:
    """The adapter that a recipe would get: presets stand in recipes only."""
    from grainline import recipe
    from grainline.errors import UserError

    spec = recipe.load({"model": model or "none", "data": "none.jsonl", "adapter": text}).adapter
    if not spec.roles:
        raise UserError(f"{text} attaches nothing.", instead="Name an adapter.")
    return spec


def _upkeep(subject: Any, shape: list[int]) -> tuple[Upkeep, dict[str, float]]:
    from grainline import contract as contracts
    from grainline import rooms
    from grainline.upkeep import measure

    lora = contracts.Subject(rooms.parse("adapters", MEASURE), subject.base, subject.ids)
    mine, theirs = measure([subject, lora], contracts.tokens(subject.base, *shape))
    return mine, mine.beside(theirs)


def _as_dict(text: str, findings: list[Finding], upkeep: Upkeep | None, ratios: dict[str, float]) -> dict[str, Any]:
    said: dict[str, Any] = {"adapter": text, "promises": [finding._asdict() for finding in findings]}
    return said if upkeep is None else said | {"cost": upkeep._asdict(), f"beside {MEASURE}": ratios}


def _one(text: str, findings: list[Finding], upkeep: Upkeep | None, ratios: dict[str, float]) -> None:
    from grainline.cli import _print
    from grainline.cli.plan import seconds, size

    _print.table(("promise", "", ""), [(f.promise, f.verdict, f.said) for f in findings], title=text)
    if upkeep is not None:
        written = {"seconds": seconds, "memory": size, "parameters": "{:,}".format, "file": size}
        rows = [(name, written[name](value), f"{ratios[name]:.2f}") for name, value in upkeep._asdict().items()]
        _print.table(("a training step", "", f"of {MEASURE}"), rows)


def _line(text: str, findings: list[Finding], upkeep: Upkeep | None, ratios: dict[str, float]) -> tuple[str, ...]:
    kept = [finding.verdict for finding in findings]
    excused = [finding.promise for finding in findings if finding.verdict == "excused"]
    broken = [finding.promise for finding in findings if finding.verdict == "broken"]
    said = f"{kept.count('kept')} kept" + (f"; excused: {', '.join(excused)}" if excused else "")
    said += f"; BROKEN: {', '.join(broken)}" if broken else ""
    if upkeep is None:
        return (text, said, "", "", "", "")
    return (text, said, f"{upkeep.parameters:,}", *(f"{ratios[name]:.2f}" for name in ("seconds", "memory", "file")))
