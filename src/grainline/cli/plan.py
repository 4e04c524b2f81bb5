"""``grainline plan``: what a recipe will take, before it is carried out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grainline.errors import UserError

if TYPE_CHECKING:
    from grainline.forecast import Estimate
    from grainline.recipe import Recipe
    from grainline.rehearsal import Rehearsal

Line = tuple[str, str, str]


def plan(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the folder of a run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="What to set differently.")
    ] = None,
    adapters: Annotated[
        str, typer.Option("--adapters", metavar="A,B,C", help="A table of these adapters, each in the recipe's place.")
    ] = "",
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that torchrun will start: memory is that of one.")
    ] = 1,
    probe: Annotated[bool, typer.Option("--probe", help="Load the model and take a few real steps.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, in bytes, FLOPs and seconds.")] = False,
) -> None:
    """Say what a recipe will take, before it is carried out.

    Trainable parameters, tokens, steps, memory, time.

    Reads the data, the tokenizer and the model's configuration; no weight is downloaded or loaded, unless --probe
    asks for real steps. The words are those of align. Nothing is written into the run's folder. Curated rows are made
    and kept for align, unless a step of curation takes a model: then make them first with grainline curate.

    \b
    Examples:
      grainline plan recipe.yaml
      grainline plan recipe.yaml max_tokens=4096 model.dtype=bfloat16 --probe
      grainline plan recipe.yaml --adapters lora,miss:rank=64,oft
      grainline plan recipe.yaml shard=true --processes 2
      grainline plan model=smollm2-135m-instruct data=pairs.jsonl --json
    """
    from grainline import recipe as recipes
    from grainline.cli import _print

    from_words = "=" in recipe and not Path(recipe).exists()
    words = [recipe, *(overrides or ())]
    chosen = recipes.load({} if from_words else recipe, words if from_words else words[1:], notice=_print.note)

    beside = {text: _with_adapter(recipe, words, from_words, text) for text in split(adapters)}
    if beside and probe:
        raise UserError("--probe takes steps with one adapter.", instead="Leave out --adapters, or --probe.")

    if probe and processes > 1:
        raise UserError("--probe takes steps in one process.", instead="Leave out --processes, or --probe.")

    from grainline import models  # torch, only once the recipe is sound
    from grainline.forecast import forecast
    from grainline.prepare import prepare

    prepared = prepare(chosen, models.load_tokenizer(chosen.model), quiet=json, spend=False)
    if beside:
        _compare({text: _forecast(other, prepared, processes) for text, other in beside.items()}, json=json)
        return
    estimate, rehearsal = forecast(chosen, prepared, processes), None
    if probe:
        from grainline.rehearsal import rehearse

        estimate, rehearsal = rehearse(chosen, prepared, estimate)
    if json:
        measured = None if rehearsal is None else rehearsal._asdict() | {"total": rehearsal.total}
        _print.as_json(estimate.as_dict() | {"probe": measured})
        return
    _print.table(("", "", "how it is known"), [*_counted(estimate), *_estimated(estimate)], title=estimate.source)
    if rehearsal is None:
        typer.echo("seconds: --probe takes a few real steps; grainline doctor --bench says what the machine can do")
    else:
        _print.table(("", "", "how it is known"), _measured(rehearsal), title="probe")


def split(adapters: str) -> list[str]:
    """Adapters in one text, at the commas between them.

    >>> split("lora:rank=8,alpha=16,miss,peft:type=OFT,targets=[q_proj, v_proj]")
    ['lora:rank=8,alpha=16', 'miss', 'peft:type=OFT,targets=[q_proj, v_proj]']
    """
    found: list[str] = []
    for part in re.split(r",(?![^\[{(]*[\]})])", adapters) if adapters.strip() else []:
        if found and re.match(r"\s*[\w.]+\s*=", part):  # an option, not a name
            found[-1] += f",{part}"
        else:
            found.append(part.strip())
    return found


def _with_adapter(recipe: str, words: list[str], from_words: bool, adapter: str) -> Recipe:
    """The recipe with another adapter in the place of its own; remarks on it were made before."""
    from grainline import recipe as recipes

    kept = [word for word in (words if from_words else words[1:]) if not re.match(r"adapter[.=]", word)]
    return recipes.load({} if from_words else recipe, [*kept, f"adapter={adapter}"], notice=lambda _: None)


def _forecast(chosen: Recipe, prepared: Any, processes: int) -> Estimate | UserError:
    """What it takes, or why that cannot be said without weights."""
    from grainline.forecast import forecast

    try:
        return forecast(chosen, prepared, processes)
    except UserError as refusal:
        return refusal


def _compare(found: dict[str, Estimate | UserError], *, json: bool) -> None:
    from grainline.cli import _print

    if json:
        refused = {text: {"refused": str(one)} for text, one in found.items() if isinstance(one, UserError)}
        _print.as_json({text: refused.get(text) or one.as_dict() for text, one in found.items()})  # type: ignore[union-attr]
        return
    columns = ("adapter", "trainable", "on disk", "adapter, gradients, optimizer", "activations", "memory", "work")
    _print.table(columns, [_row(text, one) for text, one in found.items() if not isinstance(one, UserError)])
    for text, one in found.items():
        if isinstance(one, UserError):
            typer.echo(f"{text}: {one}")


def _row(text: str, one: Estimate) -> tuple[str, ...]:
    memory, unknown = one.memory, "unknown"
    return (
        text,
        f"{one.trainable.total:,}",
        size(one.trainable.adapter_bytes),
        size(memory.adapter),
        unknown if memory.activations is None else size(memory.activations),
        unknown if memory.total is None else size(memory.total),
        unknown if one.work is None else flops(one.work.total),
    )


def _counted(estimate: Estimate) -> list[Line]:
    data, trainable, steps = estimate.data, estimate.trainable, estimate.steps
    roles = ", ".join(f"{role} {number:,}" for role, number in trainable.roles.items())
    cut = f"{data.truncated_prompts:,} prompts shortened, {data.truncated_answers:,} answers cut"
    saved = 1 - steps.tokens / steps.alone
    known = "counted" if steps.laid_out == steps.steps else f"counted on {steps.laid_out:,} steps"
    return [
        ("trainable", f"{trainable.total:,} of {trainable.parameters:,} parameters: {roles}", "counted"),
        ("adapter", f"{size(trainable.adapter_bytes)} on disk", "counted"),
        ("rows", f"{data.rows:,}, {data.prompts:,} prompts; {data.left_out:,} left out", "counted"),
        ("their tokens", f"{data.prompt_tokens:,} prompt, {data.answer_tokens:,} answer, longest {data.longest:,}", ""),
        ("truncated", cut, ""),
        ("steps", f"{steps.steps:,} of {steps.rows:,} rows = {steps.epochs:.3g} epochs", "counted"),
        ("forwards", f"{steps.forwards / steps.steps:.3g} a step, at most {steps.largest:,} tokens", known),
        ("tokens through the model", f"{steps.tokens_of_step:,.0f} a step, {steps.tokens_of_epoch:,.0f} an epoch", ""),
        ("layout", f"{steps.layout}; saves {saved:.0%} of {steps.alone:,} with one row an answer", known),
    ]


def _estimated(estimate: Estimate) -> list[Line]:
    memory, work = estimate.memory, estimate.work
    weights = ", ".join(f"{size(number)} in {dtype}" for dtype, number in memory.weights.items())
    parts: list[Line] = [("memory is of each process", f"{estimate.processes} processes", "")]
    parts = [*(parts if estimate.processes > 1 else []), ("memory: weights", weights, "counted")]
    if memory.reference:
        parts.append(("memory: reference", size(memory.reference), "counted"))
    parts.append(("memory: adapter, gradients, optimizer", size(memory.adapter), "counted"))
    if memory.activations is not None:
        parts.append(("memory: activations", size(memory.activations), "estimated, at the largest forward"))
    if memory.fetched:
        parts.append(("memory: layers being read", size(memory.fetched), "estimated"))
    parts.append(("memory: a chunk of logits", size(memory.logits), "estimated"))
    if memory.process:
        parts.append(("memory: Python and libraries", size(memory.process), "this process"))
    if memory.start:
        parts.append(("memory: before weights are shared out", size(memory.start + memory.process), "counted"))
    parts.append(("memory", "unknown without --probe" if memory.total is None else size(memory.total), "estimated"))
    if memory.on_disk:
        parts.append(("reference on disk", size(memory.on_disk), "counted"))
    if work is None:
        return [*parts, ("work", "unknown: this architecture does not say without weights", "")]
    shares = {"training": work.training, "reference": work.reference, "evaluation": work.evaluation}
    said = ", ".join(f"{name} {flops(share)}" for name, share in shares.items() if share)
    return [*parts, ("work", f"{flops(work.total)}: {said}", "estimated")]


def _measured(found: Rehearsal) -> list[Line]:
    speed = f"{found.tokens_per_second:,.0f} tokens a second"
    rows: list[tuple[str, Any, str]] = [
        ("layout", f"{found.layout} ({found.why})", "measured"),
        ("a step", f"{seconds(found.step)}, {speed}", f"measured, {found.steps} steps"),
        ("start", seconds(found.start), "measured"),
        ("reference", seconds(found.reference), "from a measured forward; less what is cached"),
        ("training", seconds(found.training), "from the measured steps"),
        ("evaluation", seconds(found.evaluation), "from a measured forward"),
        ("time", seconds(found.total), "without sampled answers and writing"),
        ("memory", f"{size(found.memory)}; {size(found.peak)} in these steps", "measured, at the largest forward"),
    ]
    return rows


def size(number: float) -> str:
    """Bytes in a unit one can read.

    >>> size(19537920), size(512)
    ('19.5 MB', '512 B')
    """
    return _scaled(number, ("B", "kB", "MB", "GB", "TB"))


def flops(number: float) -> str:
    """
    >>> flops(4.7e13)
    '47 TFLOP'
    """
    return _scaled(number, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))


def seconds(number: float) -> str:
    """
    >>> seconds(0.0213), seconds(75), seconds(7300)
    ('0.0213 s', '75 s', '2.03 h')
    """
    return (
        f"{number:.3g} s" if number < 600 else f"{number / 60:.3g} min" if number < 7200 else f"{number / 3600:.3g} h"
    )


def _scaled(number: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if abs(number) < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} {units[-1]}"
