"""The composition root: a recipe becomes a run. The only place that knows all rooms and all stages.

::

    records -> examples -> supervision        before any weight is loaded: a bad row costs seconds, not minutes
    model -> layout -> reference -> adapter   the reference is read before the adapter is there
    loop -> adapter folder -> evaluation

A run is a folder: ``recipe.yaml`` (resolved), ``provenance.json``, ``metrics.jsonl``, ``checkpoints/``, ``adapter/``,
``results.json`` (what was measured at the adapter's step), ``samples.jsonl``, ``warnings.jsonl`` where there were any;
later measurements add ``evaluation/NAME/``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from grainline import adapter_files, atomic, budget, checkpoint, claim, export, footprint, models, provenance, rooms
from grainline import recipe as recipes
from grainline.assessment.bench import Measured
from grainline.assessment.facts import assess, named
from grainline.batching import ordered, settled, step_examples, step_forwards
from grainline.engine import Engine, Reference, reference_kind
from grainline.errors import RecipeError, RunError, nearest
from grainline.evaluation import samples
from grainline.evaluation.measures import made
from grainline.first_look import losses
from grainline.launch import accelerator_for, check_trackers
from grainline.optimizers import _seam as optimizers
from grainline.prepare import Prepared, held_out_on_disk, on_disk, prepare
from grainline.progress import ShowProgress, say
from grainline.recipe import Recipe
from grainline.report import notebook, read
from grainline.report.card import card
from grainline.report.page import Page, page
from grainline.sharding import check_sharing, in_step
from grainline.trainer import Outcome, Plan, fit, schedule
from grainline.types import Batch, Example
from grainline.watch import Watch


def align(model: Any, data: Any, **choices: Any) -> Run:
    """Align ``model`` with preference ``data``: the whole of Grainline in one call.

    >>> run = align("smollm2-135m-instruct", "pairs.jsonl", objective="dpo:beta=0.1", steps=200, out="runs/first")

    Args:
        model: hub id, folder or alias, or a mapping of :class:`~grainline.recipe.ModelChoice` fields.
        data: path, hub id, a mapping or a list of them (a mixture); or rows in memory (a ``datasets.Dataset``, a list
            of dicts), which are kept in the run's folder.
        choices: any other key of :class:`~grainline.recipe.Recipe`, written as in YAML; and ``resume``, ``callbacks``,
            ``progress`` as in :func:`run`.
    """
    options = {key: choices.pop(key) for key in ("resume", "callbacks", "progress") if key in choices}
    kept = Path(choices.get("out", "runs/latest")) / "data"
    data = on_disk(data, kept / "train.jsonl")
    if choices.get("evaluation") is None:
        choices.pop("evaluation", None)
    elif isinstance(choices["evaluation"], Mapping):
        choices["evaluation"] = held_out_on_disk(choices["evaluation"], kept)
    return run(recipes.load({"model": model, "data": data, **choices}), **options)


def run(
    recipe: Recipe,
    *,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
    progress: bool = True,
    approve: Callable[[Mapping[str, Any]], None] | None = None,
) -> Run:
    """Carry out ``recipe`` in its folder.

    Args:
        resume: go on from the newest checkpoint of the folder.
        callbacks: objects with any of transformers' event methods.
        progress: say on standard error what is being done.
        approve: is shown what data and model are, as provenance.json will say it, before anything is written; what it
            raises ends the run there.

    Raises:
        UserError: the recipe, the data or the model cannot be used; nothing was started, and the folder is free.
        TrainingError: the run failed on the way.
    """
    folder = Path(recipe.out)
    check_trackers(recipe)
    recipe = claim.continued(folder, recipe) if resume else claim.fresh(folder, recipe)
    accelerator = accelerator_for(recipe, log_with=list(recipe.trackers) or None, project_dir=str(folder))
    quiet = not (progress and accelerator.is_main_process)
    if recipe.shard:
        check_sharing(recipe, reference_kind(recipe), accelerator.num_processes)
    set_seed(recipe.seed)
    footprint.forget_peak(accelerator.device)

    tokenizer = models.load_tokenizer(recipe.model)
    prepared = prepare(recipe, tokenizer, quiet=quiet)
    schedule(_plan(recipe, 1))  # a misspelt schedule is found now, not when the reference has been read

    held = dataclasses.replace(recipe.model, device="cpu") if recipe.shard else recipe.model
    loaded = models.load(held, tokenizer=tokenizer)
    say(f"model: {loaded.source}", quiet=quiet)
    engine = Engine.build(recipe, loaded.model, prepared.train, accelerator)
    if recipe.model.adapter is None and not recipe.shard:
        recipe.adapter.config(loaded.model)  # and so is a target that matches nothing
    processes = accelerator.num_processes
    if recipe.max_tokens != "auto":
        recipe = settled(recipe, prepared.train, engine.layout, processes, quiet=quiet)
    order, steps = ordered(recipe, prepared.train)
    resolved = _resolved(recipe, loaded, engine, steps)
    facts: dict[str, Any] = {"model": {"source": loaded.source, "sha256": engine.fingerprint, "dtype": loaded.dtype}}
    facts["model"]["adapter_sha256"] = adapter_files.fingerprint(recipe.model.adapter) if recipe.model.adapter else None
    facts |= {"device": accelerator.device, "data": prepared.facts, "seed": recipe.seed}
    if approve is not None:
        approve(facts)
    if resume:
        claim.check_same(folder, facts)
        read.metrics(folder), read.warnings(folder)  # damaged, they are named now and not at the first step
    mine, written = accelerator.is_main_process, recipes.dump(resolved)

    def whole(step: int) -> list[Batch]:
        return step_forwards(recipe, order, step, layout=engine.layout)

    if mine and resume:
        atomic.text(folder / "recipe.yaml", written)
    with claim.held(folder / "recipe.yaml", written) if mine and not resume else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        say(f"layout: {engine.layout} ({engine.why})", quiet=quiet)
        used = _distinct(row for step in range(steps) for row in step_examples(recipe, order, step))
        held_out = [row for rows in prepared.held_out.values() for row in rows]
        reference = engine.reference([*used, *held_out], quiet=quiet)
        look = losses(recipe, engine.scorer, reference, whole, steps)
        engine.attach(folder, look, resume=resume)
        _check_best(recipe, engine, prepared, reference)
        if recipe.evaluation.geometry:
            engine.geometry(1)  # a mixture of weights cannot be looked at: said now, not at the first evaluation
        parameters = engine.trainable()
        if recipe.max_tokens == "auto":
            found = budget.settle(recipe, engine, order, steps, reference)
            say(str(found), quiet=quiet)
            recipe = dataclasses.replace(recipe, max_tokens=found.max_tokens)
            engine.recipe = recipe = settled(recipe, prepared.train, engine.layout, processes, quiet=quiet)
            order, steps = ordered(recipe, prepared.train)
            resolved = _resolved(recipe, loaded, engine, steps)
            if accelerator.is_main_process:
                atomic.text(folder / "recipe.yaml", recipes.dump(resolved))
        optimizer = optimizers.build(recipe.optimizer, parameters, steps=steps)
        if accelerator.is_main_process:
            known = provenance.gathered() | facts | {"run": engine.facts(parameters)}
            provenance.write(folder / "provenance.json", known)
    trained, total = (sum(p.numel() for p in ps) for ps in ([t.tensor for t in parameters], loaded.model.parameters()))
    say(f"adapter: {trained:,} trainable of {total:,} parameters; {steps} steps of {recipe.batch_size}", quiet=quiet)
    if recipe.trackers:
        accelerator.init_trackers(folder.name, config=provenance.flat(recipes.as_dict(resolved)))

    def batches(step: int) -> list[Batch]:
        only = accelerator.process_index
        return step_forwards(recipe, order, step, layout=engine.layout, processes=processes, only=only)

    def evaluate(*, start: bool = False) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, rows in prepared.held_out.items():
            metrics = engine.evaluate(rows, reference, start=start).metrics
            found |= {f"eval_{name}_{key}": value for key, value in metrics.items()}
        return found | (engine.geometry() if recipe.evaluation.geometry and not start else {})

    measured = (folder / "metrics.jsonl").is_file()  # by a run that is resumed
    accelerator.wait_for_everyone()
    if prepared.held_out and not measured:
        engine.scorer.eval()
        before = evaluate(start=True)
        if accelerator.is_main_process:
            checkpoint.append(folder / "metrics.jsonl", {"step": 0, **before})
        accelerator.wait_for_everyone()

    beta = getattr(recipe.objective, "beta", None)
    watch = Watch(folder, beta=beta, max_grad_norm=recipe.max_grad_norm, quiet=quiet)
    watching = [watch] if accelerator.is_main_process else []
    with contextlib.closing(ShowProgress()) as bar:
        outcome = fit(
            engine.scorer,
            recipe.objective,
            optimizer,
            batches,
            _plan(recipe, steps),
            folder,
            reference=reference,
            evaluate=evaluate if prepared.held_out or recipe.evaluation.geometry else None,
            callbacks=[*engine.following(folder), *([] if quiet else [bar]), *watching, *callbacks],
            accelerator=accelerator,
            resume=resume,
            tolerance=engine.start_tolerance,
        )
    with in_step(engine.scorer):  # the others lend their part of the weights
        if outcome.finished and accelerator.is_main_process:
            _finish(recipe, engine, outcome, prepared, tokenizer, folder, accelerator)
    accelerator.wait_for_everyone()  # for all processes the run is finished once its folder is
    accelerator.end_training()
    if not outcome.finished:
        say(f"stopped at step {outcome.step} of {steps}; go on with resume", quiet=quiet)
    return Run(folder)


# ------------------------------------------------------------------------------------------------------- the folder


class Run:
    """A run's folder, and what can be asked of it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "recipe.yaml").is_file():
            raise RunError("no recipe.yaml here: not a run.", where=str(folder), instead="Give the folder of a run.")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, what next, choices and cost."""
        return notebook.card(self.folder)

    @property
    def recipe(self) -> Recipe:
        return recipes.load(self.folder / "recipe.yaml")

    @property
    def metrics(self) -> list[dict[str, float]]:
        """One dict a line of metrics.jsonl: ``pandas.DataFrame(run.metrics)``."""
        return [dict(line) for line in read.metrics(self.folder)]

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").is_file()

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    def summary(self) -> dict[str, Any]:
        """What is true of the adapter: its step, the training and held-out metrics of that step, and ``peak_memory``,
        the most bytes that the run held (of the GPU's memory, or else as a process; a resumed run's last stretch)."""
        if not self.finished:
            raise RunError("the run is not finished.", where=str(self.folder), instead="Resume it.")
        return json.loads((self.folder / "results.json").read_text(encoding="utf-8"))

    def samples(self) -> list[dict[str, Any]]:
        """Held-out prompts with the policy's answer and, where there is one, the reference's."""
        file = self.folder / "samples.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []

    def before(self) -> dict[str, Any]:
        """The same held-out metrics before the first step; empty without evaluation data."""
        return next((line for line in self.metrics if line["step"] == 0), {})

    def evaluate(
        self,
        data: str | Mapping[str, Any],
        *,
        against: Run | str | Path | None = None,
        progress: bool = True,
        **measures: Any,
    ) -> dict[str, dict[str, float]]:
        """The trained adapter measured on named held-out sets (one without a name is called as its file).

        Figures and all that they are made of are written to ``evaluation/NAME/`` (docs/evaluation.md); what is there
        already is not measured again. Returns all figures of each set.

        Args:
            against: another run to be compared with on the same rows.
            measures: fields of :class:`~grainline.evaluation.measures.Measures`: which families, and how.
        """
        if against is not None and not isinstance(against, Run):
            against = Run(against)
        other = against._measured() if against is not None else None
        sets = named(data)
        return assess(self._measured(), self.folder, sets, made(**measures), against=other, quiet=not progress)

    def _measured(self) -> Measured:
        if not self.adapter.is_dir():
            raise RunError(
                "no adapter yet.", where=str(self.folder), instead="Resume the run; a finished one can be measured."
            )
        whole = dataclasses.replace(self.recipe, shard=False)  # each process that measures holds all weights
        return Measured(whole, self.adapter, self.folder.resolve().name)

    def report(self, *others: Run | str | Path) -> Page:
        """The run on one page, with ``others`` beside it: a notebook shows it, ``.save("page.html")`` writes it."""
        return page([self.folder, *(run.folder if isinstance(run, Run) else run for run in others)])

    def export(self, to: str | Path, *, format: str = "peft", rank: int | None = None) -> dict[str, Any]:
        """Write the adapter for other tools: ``peft`` (PEFT's two files), ``lora`` (a plain LoRA of ``rank`` that does
        the same) or ``merged`` (a plain model folder)."""
        return export.export(self.folder, to, format, methods=_methods(self.recipe), rank=rank)


def _check_best(recipe: Recipe, engine: Engine, prepared: Prepared, reference: Reference | None) -> None:
    """A metric that does not exist would be missed at the first evaluation only, perhaps at the run's end."""
    best = (recipe.evaluation.best or "").removeprefix("-")
    if best:
        engine.scorer.eval()  # dropout would draw
        looks = {name: engine.evaluate(rows[:1], reference).metrics for name, rows in prepared.held_out.items()}
        there = [f"eval_{name}_{key}" for name, metrics in looks.items() for key in metrics]
        if best not in there:
            raise RecipeError(f"no metric {best!r}.", where="evaluation.best", instead=nearest(best, there))


def _resolved(recipe: Recipe, loaded: models.LoadedModel, engine: Engine, steps: int) -> Recipe:
    """The recipe with all that sets numbers decided. The device is not: a run may go on, and be used, elsewhere."""
    dtype: Any = str(loaded.dtype).removeprefix("torch.")
    model = dataclasses.replace(recipe.model, dtype=dtype)
    kind = engine.kind if engine.needs_reference else recipe.reference
    known = recipe.steps if recipe.batch_size == "auto" else steps
    return dataclasses.replace(recipe, model=model, steps=known, layout=engine.layout, reference=kind)


def _plan(recipe: Recipe, steps: int) -> Plan:
    return Plan(
        steps=steps,
        schedule=recipe.schedule,
        warmup=recipe.warmup,
        max_grad_norm=recipe.max_grad_norm,
        evaluate_every=recipe.evaluation.every,
        best=recipe.evaluation.best,
        patience=recipe.evaluation.patience,
        save_every=recipe.checkpoints.every,
        keep=recipe.checkpoints.keep,
    )


def _finish(
    recipe: Recipe,
    engine: Engine,
    outcome: Outcome,
    prepared: Prepared,
    tokenizer: Any,
    folder: Path,
    accelerator: Accelerator,
) -> None:
    """Write the adapter (the best one where one was asked for) and a few answers, policy beside reference."""
    if outcome.best is not None:
        checkpoint.load_trainable(outcome.best, engine.scorer)
    engine.scorer.eval()
    with engine.scorer.plain() as model:
        export.write_adapter(
            model,
            folder / "adapter",
            tokenizer=tokenizer,
            initial=_if_there(folder / "initial"),
            methods=_methods(recipe),
        )
    step = int(outcome.best.name.removeprefix("step-")) if outcome.best else outcome.step
    found = {k: v for line in Run(folder).metrics if line["step"] == step for k, v in line.items()}
    provenance.write(folder / "results.json", found | {"peak_memory": footprint.peak(accelerator.device)})
    prompts = {example.prompt: example for example in next(iter(prepared.held_out.values()), [])}
    few = list(prompts.values())[: recipe.evaluation.samples]
    if few:
        comparable = hasattr(engine.scorer.model, "disable_adapter") and not recipe.moved_start
        with engine.scorer.plain() as model:
            off = engine.adapter_off if comparable else None
            how = {"temperature": recipe.evaluation.temperature, "seed": recipe.seed}
            rows = samples.compare(model, tokenizer, few, off=off, **how)
        atomic.text(folder / "samples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    atomic.text(folder / "adapter" / "README.md", card(folder))


def _distinct(examples: Iterable[Example]) -> list[Example]:
    return list({id(example): example for example in examples}.values())


def _methods(recipe: Recipe) -> list[str]:
    return [rooms.name_of(type(choice)) for choice in (recipe.objective, recipe.adapter)]


def _if_there(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None
