"""The composition root: a recipe becomes a run. The only place that knows all rooms and all stages.

::

    records -> examples -> supervision        before any weight is loaded: a bad row costs seconds, not minutes
    model -> layout -> reference -> adapter   the reference is read before the adapter is there
    loop -> adapter folder -> evaluation

A run is a folder: ``recipe.yaml`` (resolved), ``provenance.json``, ``metrics.jsonl``, ``checkpoints/``, ``adapter/``,
``evaluation.json``, ``samples.jsonl``.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed

from grainline import checkpoint, export, models, provenance, rooms
from grainline import recipe as recipes
from grainline.adapters import _seam as adapters
from grainline.data import collate, load, mixture
from grainline.data.encode import Encoder
from grainline.data.order import Order
from grainline.errors import RecipeError, RunError
from grainline.evaluation import preferences, samples
from grainline.forward import Scorer, choose_layout, probe_length
from grainline.progress import ShowProgress, say, track
from grainline.recipe import DataChoice, Recipe
from grainline.reference_cache import ReferenceCache
from grainline.trainer import Outcome, Plan, fit
from grainline.types import Batch, Example, LogProbs, Record

Reference = Callable[[Batch], LogProbs]


def align(model: Any, data: Any, **choices: Any) -> Run:
    """Align ``model`` with preference ``data``: the whole of Grainline in one call.

    >>> run = align("smollm2-135m-instruct", "pairs.jsonl", objective="dpo:beta=0.1", steps=200, out="runs/first")

    Args:
        model: hub id, folder or alias, or a mapping of :class:`~grainline.recipe.ModelChoice` fields.
        data: path, hub id, a mapping or a list of them (a mixture).
        choices: any other key of :class:`~grainline.recipe.Recipe`, written as in YAML; and ``resume``, ``callbacks``,
            ``progress`` as in :func:`run`.
    """
    options = {key: choices.pop(key) for key in ("resume", "callbacks", "progress") if key in choices}
    return run(recipes.load({"model": model, "data": data, **choices}), **options)


def run(recipe: Recipe, *, resume: bool = False, callbacks: Sequence[Any] = (), progress: bool = True) -> Run:
    """Carry out ``recipe`` in its folder.

    Args:
        resume: go on from the newest checkpoint of the folder.
        callbacks: objects with any of transformers' event methods.
        progress: say on standard error what is being done.

    Raises:
        UserError: the recipe, the data or the model cannot be used; nothing was started.
        TrainingError: the run failed on the way.
    """
    folder = Path(recipe.out)
    _claim(folder, recipe, resume)
    accelerator = Accelerator(
        cpu=recipe.model.device == "cpu", log_with=list(recipe.trackers) or None, project_dir=str(folder)
    )
    quiet = not (progress and accelerator.is_main_process)
    set_seed(recipe.seed)

    tokenizer = models.load_tokenizer(recipe.model)
    prepared = prepare(recipe, tokenizer, quiet=quiet)
    order = Order(prepared.train, batch_size=recipe.batch_size, sampler=recipe.sampler, seed=recipe.seed)
    steps = recipe.steps or order.steps(recipe.epochs)

    loaded = models.load(recipe.model)
    say(f"model: {loaded.source}, {str(loaded.dtype).removeprefix('torch.')} on {accelerator.device}", quiet=quiet)
    engine = Engine.build(recipe, loaded.model, prepared, accelerator)
    say(f"layout: {engine.layout} ({engine.why})", quiet=quiet)
    used = _distinct(row for step in range(steps) for row in order.step(step))
    held_out = [row for rows in prepared.held_out.values() for row in rows]
    reference = engine.reference([*used, *held_out], quiet=quiet)
    engine.attach(folder, resume=resume)
    parameters = adapters.tagged(recipe.adapter, engine.scorer.model)
    optimizer = recipe.optimizer(parameters)
    resolved = dataclasses.replace(recipe, steps=steps, layout=engine.layout, reference=engine.kind)
    if accelerator.is_main_process:
        provenance.write_text(folder / "recipe.yaml", recipes.dump(resolved))
        origin = {"model": {"source": loaded.source, "dtype": loaded.dtype, "device": accelerator.device}}
        facts = provenance.gathered() | origin | {"run": engine.facts(parameters), "data": prepared.facts}
        provenance.write(folder / "provenance.json", facts)
    trained, total = (sum(p.numel() for p in ps) for ps in ([t.tensor for t in parameters], loaded.model.parameters()))
    say(f"adapter: {trained:,} trainable of {total:,} parameters; {steps} steps of {recipe.batch_size}", quiet=quiet)
    if recipe.trackers:
        accelerator.init_trackers(folder.name, config=provenance.flat(recipes.as_dict(resolved)))

    def batches(step: int) -> list[Batch]:
        parts = collate.pack(
            order.step(step), max_tokens=recipe.max_tokens, layout=engine.layout, parts=accelerator.num_processes
        )
        mine = parts[accelerator.process_index :: accelerator.num_processes]
        return [collate.collate(part, rows=engine.rows, layout=engine.layout) for part in mine]

    def evaluate() -> dict[str, float]:
        found = {}
        for name, rows in prepared.held_out.items():
            metrics = engine.evaluate(rows, reference).metrics
            found |= {f"eval_{name}_{key}": value for key, value in metrics.items()}
        return found

    outcome = fit(
        engine.scorer,
        recipe.objective,
        optimizer,
        batches,
        _plan(recipe, steps),
        folder,
        reference=reference,
        evaluate=evaluate if prepared.held_out else None,
        callbacks=[*([] if quiet else [ShowProgress()]), *callbacks],
        accelerator=accelerator,
        resume=resume,
        tolerance=engine.tolerance,
    )
    _finish(recipe, engine, outcome, prepared, tokenizer, folder, accelerator)
    accelerator.end_training()
    if not outcome.finished:
        say(f"stopped at step {outcome.step} of {steps}; go on with resume", quiet=quiet)
    return Run(folder)


# ------------------------------------------------------------------------------------------------------------ data


class Prepared(NamedTuple):
    """Examples, ready before any weight is loaded."""

    train: list[Example]
    held_out: dict[str, list[Example]]
    facts: dict[str, Any]  # digests and counts, for the provenance


def prepare(recipe: Recipe, tokenizer: Any, *, quiet: bool = True) -> Prepared:
    """Read, check, tokenise and mark every row of the recipe's data.

    Raises:
        DataError: rows that cannot be used (unless ``skip_bad_rows``), or data without what a method needs.
    """
    read = [_read(choice, recipe) for choice in recipe.data]
    mixed = mixture.mix([(f.records, c.weight) for f, c in zip(read, recipe.data, strict=True)], seed=recipe.seed)
    train, counts = _encode(mixed, read, recipe, tokenizer, quiet)
    facts: dict[str, Any] = {"train": [_described(f) for f in read], "train_tokens": counts, "evaluation": {}}
    held_out = {}
    for name, choice in recipe.evaluation.data.items():
        found = _read(choice, recipe)
        held_out[name], counts = _encode(found.records, [found], recipe, tokenizer, quiet)
        facts["evaluation"][name] = _described(found) | counts
    return Prepared(train, held_out, facts)


def _read(choice: DataChoice, recipe: Recipe) -> load.Loaded:
    found = load.read(choice.path, split=choice.split)
    load.refuse(found, skip_bad_rows=recipe.skip_bad_rows)
    return found


def _described(found: load.Loaded) -> dict[str, Any]:
    return {
        "path": found.name,
        "digest": found.digest,
        "rows": len(found.records),
        "left_out": [str(problem) for problem in found.problems],
    }


def _encode(
    records: Sequence[Record], sources: Sequence[load.Loaded], recipe: Recipe, tokenizer: Any, quiet: bool
) -> tuple[list[Example], dict[str, int]]:
    """Tokenised and marked examples of ``records``, and what was done to them."""
    encoder = Encoder(tokenizer, max_length=recipe.max_length)
    examples, problems = encoder.encode_all(records)
    name = " + ".join(found.name for found in sources)
    load.refuse(load.Loaded([e.record for e in examples], problems, name, ""), skip_bad_rows=recipe.skip_bad_rows)
    _check_needs(recipe, examples)
    left_out = sum(len(found.problems) for found in sources) + len(problems)
    cut, short = encoder.counts["truncated_prompts"], encoder.counts["truncated_answers"]
    say(
        f"data: {name}, {len(examples)} rows"
        + (f"; {cut} prompts and {short} answers shortened to {recipe.max_length} tokens" if cut or short else "")
        + (f"; {left_out} unusable rows left out" if left_out else ""),
        quiet=quiet,
    )
    return [recipe.supervision(example) for example in examples], {**encoder.counts, "left_out": left_out}


def _check_needs(recipe: Recipe, examples: Sequence[Example]) -> None:
    first = examples[0].record
    if "pairs" in recipe.objective.needs and not first.is_pair:
        raise RecipeError(
            f"{rooms.text(recipe.objective)} needs pairs (chosen, rejected), {first.where} is a single labelled answer",
            where="objective",
            instead="Choose an objective for labelled rows, or sft.",
        )
    if "spans" in recipe.supervision.needs and not any(a.spans for e in examples for a in e.record.answers):
        raise RecipeError(
            f"{rooms.text(recipe.supervision)} needs spans, no row has any",
            where="supervision",
            instead="Choose supervision=sequence, or add chosen_spans and rejected_spans.",
        )


# ---------------------------------------------------------------------------------------------------------- engine


class Engine:
    """A scorer and what is known of it: its layout, its reference, its adapter."""

    def __init__(self, recipe: Recipe, scorer: Scorer, layout: str, why: str, accelerator: Accelerator) -> None:
        self.recipe, self.scorer, self.layout, self.why, self.accelerator = recipe, scorer, layout, why, accelerator
        self.rows = collate.speaking(recipe.objective.needs)
        self.needs_reference = "reference" in recipe.objective.needs
        self.kind = ("cache" if recipe.reference == "auto" else recipe.reference) if self.needs_reference else "off"
        dtype = next(scorer.causal.parameters()).dtype
        self.tolerance = {torch.float32: 1e-3, torch.float64: 1e-6}.get(dtype, 0.5)
        self.verified: float | None = None
        _check_reference(recipe, self.kind, self.needs_reference)

    @classmethod
    def build(cls, recipe: Recipe, model: Any, prepared: Prepared, accelerator: Accelerator) -> Engine:
        """Place the model (with the adapter to continue from, if any) and find the layout that is exact for it."""
        models.disable_dropout(model)
        if recipe.model.adapter:
            model = export.load_adapter(model, Path(recipe.model.adapter), trainable=True)
        scorer = Scorer(model.to(accelerator.device).eval())
        rows = collate.speaking(recipe.objective.needs)
        possible = [name for name in ("tree", "packed", "padded") if name in recipe.adapter.layouts]
        if recipe.layout not in ("auto", *possible):
            raise RecipeError(
                f"{rooms.text(recipe.adapter)} is not exact in the {recipe.layout} layout",
                where="layout",
                instead=f"Choose auto or {' or '.join(possible)}.",
            )
        few = _probe_examples(prepared.train, probe_length(scorer.causal.config, recipe.max_length))
        batches = {name: collate.collate(few, rows=rows, layout=name) for name in ("tree", "packed", "padded")}  # type: ignore[arg-type]
        batches = {name: batch.to(accelerator.device) for name, batch in batches.items()}
        layout, why = choose_layout(scorer, batches, possible if recipe.layout == "auto" else [recipe.layout])
        return cls(recipe, scorer, layout, why, accelerator)

    def forwards(self, examples: Sequence[Example]) -> list[Batch]:
        """This process's share of ``examples``, as forwards."""
        mine = (self.accelerator.process_index, self.accelerator.num_processes)
        return preferences.forwards(
            examples,
            rows=self.rows,
            layout=self.layout,
            max_tokens=self.recipe.max_tokens,
            share=mine,  # type: ignore[arg-type]
        )

    def reference(self, examples: Sequence[Example], *, quiet: bool) -> Reference | None:
        """The reference as a function of a batch; to be made before the adapter is attached."""
        if not self.needs_reference:
            return None
        if self.kind == "off":
            return self._without_adapter
        if self.kind == "snapshot":
            frozen = Scorer(copy.deepcopy(self.scorer.model).requires_grad_(False).eval(), packed=self.scorer.packed)
            return torch.no_grad()(frozen)
        key = models.fingerprint(self.scorer.model)
        if self.recipe.model.adapter:
            weights = (Path(self.recipe.model.adapter) / export.WEIGHTS).read_bytes()
            key += "-" + hashlib.sha256(weights).hexdigest()[:16]
        cache = ReferenceCache(models.cache_dir() / "reference" / key)
        batches = self.forwards(examples)
        missing = cache.missing(batches)
        cache.fill(track(missing, "reference log-probs", quiet=quiet), self._score)
        self.accelerator.wait_for_everyone()
        cache.reload()
        if len(missing) < len(batches):
            self.verified = cache.verify(batches, self._score, tolerance=self.tolerance, seed=self.recipe.seed)
        return cache

    def attach(self, folder: Path, *, resume: bool) -> None:
        """Put the fresh adapter on, unless training goes on from an existing one."""
        if self.recipe.model.adapter is None:
            torch.manual_seed(self.recipe.seed)
            self.scorer.model = adapters.attach(self.recipe.adapter, self.scorer.model)
            if self.recipe.adapter.changes_base and self.accelerator.is_main_process and not resume:
                export.write_initial(self.scorer.model, folder / "initial")

    def evaluate(self, examples: Sequence[Example], reference: Reference | None) -> preferences.Evaluation:
        """Held-out metrics, shared by all processes."""
        rows = preferences.evaluate(
            self.scorer,
            self.recipe.objective,
            self.forwards(examples),
            reference=reference,
            device=self.accelerator.device,
        )
        rows = gather_object(rows) if self.accelerator.num_processes > 1 else rows
        rank = {e.record.id: i for i, e in enumerate(examples)}
        rows.sort(key=lambda row: rank[row["id"]])
        return preferences.Evaluation(preferences.summarise(rows, {e.record.id: e.prompt for e in examples}), rows)

    def facts(self, parameters: Sequence[Any]) -> dict[str, Any]:
        return {
            "layout": self.layout,
            "layout_why": self.why,
            "reference": self.kind if self.needs_reference else None,
            "reference_verified_nats": self.verified,
            "trainable": sum(tagged.tensor.numel() for tagged in parameters),
            "roles": sorted({tagged.role for tagged in parameters}),
        }

    def adapter_off(self) -> Any:
        """The context in which the model is its own reference."""
        model = self.scorer.model
        return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()

    def _score(self, batch: Batch) -> LogProbs:
        with torch.no_grad():
            return self.scorer(batch.to(self.accelerator.device))

    def _without_adapter(self, batch: Batch) -> LogProbs:
        with self.adapter_off():
            return self._score(batch)


def _check_reference(recipe: Recipe, kind: str, needed: bool) -> None:
    if not needed and recipe.reference != "auto":
        raise RecipeError(
            f"{rooms.text(recipe.objective)} uses no reference", where="reference", instead="Leave it at auto."
        )
    if needed and kind == "off" and (recipe.adapter.changes_base or recipe.model.adapter):
        why = "training starts from an adapter" if recipe.model.adapter else "this adapter changes the base weights"
        raise RecipeError(
            f"the model with its adapter off is not the reference: {why}",
            where="reference",
            instead="Choose cache or snapshot.",
        )


def _probe_examples(examples: Sequence[Example], length: int) -> list[Example]:
    """A few rows that together show everything: two of one prompt where there are two, and one of ``length`` tokens."""

    def size(example: Example) -> int:
        return len(example.prompt) + max(len(answer.ids) for answer in example.answers)

    long_enough = sorted((e for e in examples if size(e) >= length), key=size)
    few = [*sorted(examples[:64], key=size)[:3], *(long_enough[:1] or [max(examples, key=size)])]
    prompts: dict[tuple[int, ...], Example] = {}
    for example in examples:
        if example.prompt in prompts and size(example) <= 512:
            return [*few, prompts[example.prompt], example]
        prompts[example.prompt] = example
    return few


# ------------------------------------------------------------------------------------------------------- the folder


class Run:
    """A run's folder, and what can be asked of it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "recipe.yaml").is_file():
            raise RunError("no recipe.yaml here: not a run", where=str(folder), instead="Give the folder of a run.")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def recipe(self) -> Recipe:
        return recipes.load(self.folder / "recipe.yaml")

    @property
    def metrics(self) -> list[dict[str, float]]:
        """One dict a line of metrics.jsonl: ``pandas.DataFrame(run.metrics)``."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    def summary(self) -> dict[str, Any]:
        """The last evaluation during training, and the last training step."""
        metrics = self.metrics
        last = next((m for m in reversed(metrics) if "loss" in m), {})
        held_out = next((m for m in reversed(metrics) if "loss" not in m), {})
        return {**last, **held_out}

    def evaluate(self, data: Mapping[str, Any], *, progress: bool = True) -> dict[str, dict[str, float]]:
        """Held-out metrics of the trained adapter on named data sets; also written to ``evaluation.json``."""
        sets = {name: DataChoice(path=d) if isinstance(d, str) else d for name, d in data.items()}
        recipe = dataclasses.replace(
            self.recipe, evaluation=dataclasses.replace(self.recipe.evaluation, data=sets), data=tuple(sets.values())
        )
        quiet = not progress
        accelerator = Accelerator(cpu=recipe.model.device == "cpu")
        prepared = prepare(recipe, models.load_tokenizer(recipe.model), quiet=quiet)
        loaded = models.load(recipe.model)
        engine = Engine.build(recipe, loaded.model, prepared, accelerator)
        reference = engine.reference([row for rows in prepared.held_out.values() for row in rows], quiet=quiet)
        with engine.scorer.plain() as model:
            engine.scorer.model = export.load_adapter(model, self.adapter)
        engine.scorer.eval()
        found = {name: engine.evaluate(rows, reference) for name, rows in prepared.held_out.items()}
        for name, evaluation in found.items():
            provenance.write_text(
                self.folder / f"evaluation-{name}.json",
                json.dumps({"data": prepared.facts["evaluation"][name], **evaluation._asdict()}, indent=1),
            )
        return {name: evaluation.metrics for name, evaluation in found.items()}

    def export(self, to: str | Path, *, format: str = "peft") -> dict[str, Any]:
        """Write the adapter for other tools: ``peft`` (PEFT's two files) or ``merged`` (a plain model folder)."""
        return export.export(self.folder, to, format, methods=_methods(self.recipe))


def _claim(folder: Path, recipe: Recipe, resume: bool) -> None:
    """The folder is this recipe's, or nobody's."""
    existing = folder / "recipe.yaml"
    if resume:
        if not existing.is_file():
            raise RunError("nothing to resume: no recipe.yaml", where=str(folder), instead="Start it without resume.")
        changed = recipes.differences(recipes.load(existing), recipe)
        if changed:
            raise RunError(
                f"the run was started with another recipe ({', '.join(changed)} differ)",
                where=str(folder),
                instead="Resume with the run's own recipe.yaml, or choose another out.",
            )
    elif existing.is_file():
        raise RunError(
            "this folder holds a run already", where=str(folder), instead="Resume it, or choose another out."
        )
    folder.mkdir(parents=True, exist_ok=True)


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
    if not outcome.finished or not accelerator.is_main_process:
        return
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
    few = next(iter(prepared.held_out.values()), [])[: recipe.evaluation.samples]
    if few:
        comparable = hasattr(engine.scorer.model, "disable_adapter") and not recipe.adapter.changes_base
        with engine.scorer.plain() as model:
            rows = samples.compare(model, tokenizer, few, off=engine.adapter_off if comparable else None)
        provenance.write_text(folder / "samples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _distinct(examples: Any) -> list[Example]:
    return list({id(example): example for example in examples}.values())


def _methods(recipe: Recipe) -> list[str]:
    return [rooms.name_of(type(choice)) for choice in (recipe.objective, recipe.adapter)]


def _if_there(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None
