"""A scorer and what is known of it: its layout, its reference, its adapter. What a run and an evaluation share."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from grainline import adapter_files, export, first_look, geometry, heads, models, rooms, sharding
from grainline.adapters import _seam as adapters
from grainline.data import collate
from grainline.errors import ModelError, RecipeError
from grainline.evaluation import preferences
from grainline.forward import Scorer, choose_layout, parts, probe_examples, probe_length, rounding
from grainline.layout_memory import remembered
from grainline.progress import track
from grainline.recipe import Recipe
from grainline.reference_cache import ReferenceCache
from grainline.synchronise import Synchronise, merged
from grainline.types import Batch, Example, Layout, LogProbs, Tagged

Reference = Callable[[Batch], LogProbs]

Kind = Literal["off", "snapshot", "cache"]
LAYOUTS: tuple[Layout, ...] = ("tree", "packed", "padded")
"""The fastest first."""


class Engine:
    """A scorer and what is known of it: its layout, its reference, its adapter."""

    def __init__(
        self, recipe: Recipe, scorer: Scorer, layout: Layout, why: str, accelerator: Accelerator, fingerprint: str
    ) -> None:
        self.recipe, self.scorer, self.layout, self.why, self.accelerator = recipe, scorer, layout, why, accelerator
        self.fingerprint = fingerprint  # of the base
        self.rows = collate.speaking(recipe.objective.needs)
        self.needs_reference = "reference" in recipe.objective.needs
        self.kept = parts(recipe.objective.needs)  # of the reference, beside log-probs
        self.kind = reference_kind(recipe)
        self.tolerance = rounding(scorer.causal)
        self.start_tolerance = math.inf if adapters.starts_apart(recipe.adapter) else self.tolerance
        self.verified: float | None = None
        self.follower: Any = None  # the reference's model, where it follows the policy
        self.start: dict[str, Tensor] = {}  # of an adapter that was taken out of the base, to be compared with

    @classmethod
    def build(cls, recipe: Recipe, model: Any, examples: Sequence[Example], accelerator: Accelerator) -> Engine:
        """Place the model (with the adapter to continue from, if any) and find the layout that is exact for it."""
        possible = possible_layouts(recipe)
        fingerprint = models.fingerprint(model)
        if ready := getattr(recipe.adapter, "readied", None):
            ready(model)
        model.requires_grad_(False)  # until an adapter is there, nothing trains
        if recipe.model.adapter:
            model = export.load_adapter(model, Path(recipe.model.adapter), trainable=True)
            if not hasattr(model, "peft_config"):
                raise ModelError(
                    "this folder holds a whole model.", where=recipe.model.adapter, instead="Give it as the model."
                )
            if getattr(model.active_peft_config, "added_ids", False):
                raise ModelError(
                    "it reads ids that nothing places in the prompts when training goes on.",
                    where=recipe.model.adapter,
                    instead="Train a fresh one.",
                )
        # With the dropout of an adapter that goes on, the policy would not start at its own reference.
        models.disable_dropout(model)
        if not recipe.shard:
            model = model.to(accelerator.device)
        elif not recipe.model.adapter:  # what looks at whole weights comes first, on the CPU
            model = _adapted(recipe, model)
        scorer = Scorer(model.eval())
        if recipe.fuse:
            scorer.fuse()
        if recipe.shard:
            sharding.shard(scorer, accelerator.device)
        rows = collate.speaking(recipe.objective.needs)
        few = probe_examples(examples, probe_length(scorer.causal.config, recipe.max_length))
        batches = {name: collate.collate(few, rows=rows, layout=name) for name in LAYOUTS}
        batches = {name: batch.to(accelerator.device) for name, batch in batches.items()}
        rests_on = [fingerprint, _digest(scorer.causal.config, recipe)]
        find = choose_layout if accelerator.num_processes > 1 else remembered(rests_on)  # several all try, or none
        layout, why = find(scorer, batches, possible)
        return cls(recipe, scorer, layout, why, accelerator, fingerprint)

    def forwards(self, examples: Sequence[Example], rows: collate.Speaking | None = None) -> list[Batch]:
        """This process's share of ``examples``, as forwards."""
        mine = (self.accelerator.process_index, self.accelerator.num_processes)
        return preferences.forwards(
            examples, rows=rows or self.rows, layout=self.layout, max_tokens=self.recipe.tokens_at_once, share=mine
        )

    def reference(self, examples: Sequence[Example], *, quiet: bool) -> Reference | None:
        """The reference as a function of a batch; to be made before the adapter is attached."""
        if not self.needs_reference:
            return None
        if self.kept:  # the adapter may be put on the head, or free it
            head = self.scorer.causal.get_output_embeddings()
            self.scorer.reference_head = copy.deepcopy(head).requires_grad_(False)
        if self.kind == "off":
            return self._without_adapter
        if self.kind == "snapshot":
            follows = self.recipe.synchronise.every
            frozen = self.frozen(merged(self.scorer.model) if follows else copy.deepcopy(self.scorer.model))
            if follows:
                self.follower = frozen.model
                if self.kept:
                    self.scorer.reference_head = frozen.causal.get_output_embeddings()
            return torch.no_grad()(functools.partial(frozen, keep=self.kept))
        key = f"{self.fingerprint[:32]}-{_digest(self.scorer.causal.config, self.recipe)}"
        cache = ReferenceCache(models.cache_dir() / "reference" / key, self.kept)
        batches = self.forwards(examples)
        missing = cache.missing(batches)
        known = self._one_known(cache, examples)
        score = self._score if self.recipe.model.adapter else self._without_adapter
        with sharding.in_step(self.scorer):
            cache.fill(track(missing, "reference log-probs", quiet=quiet), score)
        self.accelerator.wait_for_everyone()
        cache.reload()
        with sharding.in_step(self.scorer):
            if known is not None:
                self.verified = cache.verify(known, score, tolerance=self.tolerance)
        return cache

    def frozen(self, model: Any) -> Scorer:
        """``model`` as it is now, read like the policy; nothing of it trains."""
        made = Scorer(model.requires_grad_(False).eval(), packed=self.scorer.packed)
        if self.recipe.fuse:
            made.fuse()
        return made

    def _one_known(self, cache: ReferenceCache, examples: Sequence[Example]) -> Batch | None:
        """A short row that the cache held before this run, of some taken at random: enough to notice another model."""
        known = [e for e in examples if all(collate.content_key(e.prompt, a.ids) in cache for a in e.answers)]
        if not known:
            return None
        some = random.Random(self.recipe.seed).sample(known, min(8, len(known)))
        row = min(some, key=lambda e: sum(len(e.prompt) + len(a.ids) for a in e.answers))
        return collate.collate([row], rows=self.rows, layout=self.layout)

    def attach(self, folder: Path, look: adapters.Losses | None = None, *, resume: bool = False) -> None:
        """Put the fresh adapter on, unless training goes on from an existing one. ``look``: rows, if it wants some."""
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            heads.attach(self.recipe.objective, self.scorer)
        if self.recipe.model.adapter is None and not self.recipe.shard:
            self.scorer.model, self.scorer.fused = _adapted(self.recipe, self.scorer.model), None
            first_look.begin(self.recipe.adapter, self.scorer.model, look, folder / "initial" if resume else None)
            if self.recipe.fuse:
                self.scorer.fuse()
            wrapped = hasattr(self.scorer.model, "peft_config")  # without one the start is the base, whole
            if wrapped and self.recipe.adapter.changes_base:
                if self.accelerator.is_main_process:
                    export.write_initial(self.scorer.model, folder / "initial")
                if self.recipe.evaluation.geometry:
                    self.start = {name: tensor.detach().clone() for name, tensor, _ in self.trainable()}
        self._spare_head()

    def adopt(self, model: Any) -> None:
        """Go on with a trained ``model`` of the same base; the reference stays what it was."""
        adopted = Scorer(model, packed=self.scorer.packed).eval()
        adopted.reference_head = self.scorer.reference_head
        if self.recipe.fuse:
            adopted.fuse()
        self.scorer = adopted
        self._spare_head()

    def following(self, folder: Path) -> list[Synchronise]:
        """The callback that moves the reference, where it follows the policy."""
        if self.follower is None:
            return []
        choice, writes = self.recipe.synchronise, self.accelerator.is_main_process
        where = folder / "synchronised"
        policy = self.scorer.model
        return [Synchronise(policy, self.follower, where, every=choice.every, share=choice.share, writes=writes)]

    def evaluate(
        self,
        examples: Sequence[Example],
        reference: Reference | None,
        *,
        start: bool = False,
        look: preferences.Look | None = None,
    ) -> preferences.Evaluation:
        """Held-out metrics, shared by all processes; ``start``: before training, where policy and reference are one."""
        # What is remembered of a reference does not say how concentrated it was: then the model itself is asked.
        known = start and math.isfinite(self.start_tolerance)
        remembered = known and "concentration" not in self.recipe.objective.needs
        asked = _as_policy(reference) if remembered and reference is not None else self.scorer
        batches = self.forwards(examples, rows=looking(self.rows, examples))
        objective, device = self.recipe.objective, self.accelerator.device
        with sharding.in_step(self.scorer):
            rows = preferences.evaluate(asked, objective, batches, reference=reference, device=device, look=look)
        rows = gather_object(rows) if self.accelerator.num_processes > 1 else rows
        rank = {e.record.id: i for i, e in enumerate(examples)}
        rows.sort(key=lambda row: rank[row["id"]])
        return preferences.Evaluation(preferences.summarise(rows, {e.record.id: e.prompt for e in examples}), rows)

    def geometry(self, most: int = 12) -> dict[str, float]:
        """What the adapter did to the weights: ``geometry_*`` of :func:`grainline.geometry.monitor`.

        Raises:
            RecipeError: there is no adapter, or none that stands for changed weights.
        """
        found = geometry.monitor(self.scorer.model, most, start=self.start)
        if not found:
            what = f"adapter={rooms.text(self.recipe.adapter)} has no weights to compare with the base's."
            raise RecipeError(what, where="evaluation.geometry", instead="Leave it off.")
        return {f"geometry_{key}": value for key, value in found.items()}

    def trainable(self) -> list[Tagged]:
        """Every tensor that trains, with its role; see :func:`trainable`."""
        return [*trainable(self.recipe, self.scorer.model), *heads.tagged(self.scorer.heads)]

    def facts(self, parameters: Sequence[Any]) -> dict[str, Any]:
        return {
            "processes": self.accelerator.num_processes,
            "layout": self.layout,
            "layout_why": self.why,
            "reference": self.kind if self.needs_reference else None,
            "reference_verified_nats": self.verified,
            "trainable": sum(tagged.tensor.numel() for tagged in parameters),
            "roles": sorted({tagged.role for tagged in parameters}),
        }

    def adapter_off(self) -> Any:
        """The context in which the model is its own reference."""
        model: Any = self.scorer.model
        return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()

    def _spare_head(self) -> None:
        """Hold no second head where the model's own will always be the reference's."""
        kept, own = self.scorer.reference_head, self.scorer.causal.get_output_embeddings()
        if self.follower is None and kept is not None and _same_frozen(kept, own):
            self.scorer.reference_head = None

    def _score(self, batch: Batch) -> LogProbs:
        with torch.no_grad():
            return self.scorer(batch.to(self.accelerator.device), keep=self.kept)

    def _without_adapter(self, batch: Batch) -> LogProbs:
        with self.adapter_off():
            return self._score(batch)


def _adapted(recipe: Recipe, model: Any) -> Any:
    """``model`` with the recipe's fresh adapter on."""
    torch.manual_seed(recipe.seed)
    return adapters.attach(recipe.adapter, model)


def trainable(recipe: Recipe, model: Any) -> list[Tagged]:
    """Every tensor of ``model`` that trains, with its role.

    Raises:
        RecipeError: one of them is held in half precision, where small updates round away.
    """
    found = adapters.tagged(recipe.adapter, model)
    for name, tensor, _ in found:
        if tensor.dtype in (torch.float16, torch.bfloat16):
            held = str(tensor.dtype).removeprefix("torch.")
            raise RecipeError(
                f"{name} would be trained in {held}, where small updates round away.",
                where="model.dtype",
                instead="Set it to float32.",
            )
    return found


def possible_layouts(recipe: Recipe) -> list[Layout]:
    """The layouts to try, in order: those that are exact for the adapter, or the one that the recipe names.

    Raises:
        RecipeError: the layout or the adapter does not go with the rest.
    """
    _check_start(recipe)
    possible = [name for name in LAYOUTS if name in recipe.adapter.layouts]
    if recipe.layout not in ("auto", *possible):
        raise RecipeError(
            f"{rooms.text(recipe.adapter)} is not exact in the {recipe.layout} layout.",
            where="layout",
            instead=f"Choose auto or {' or '.join(possible)}.",
        )
    return possible if recipe.layout == "auto" else [recipe.layout]


def reference_kind(recipe: Recipe) -> Kind:
    """Who the reference is: ``cache``, ``snapshot`` or ``off`` (which also stands for none).

    Raises:
        RecipeError: that would not be the reference, or nobody asks for one.
    """
    needed = "reference" in recipe.objective.needs
    usual: Kind = "snapshot" if recipe.synchronise.every else "cache"
    if usual == "cache" and "layers" in parts(recipe.objective.needs):  # too much for a disk
        usual = "snapshot" if recipe.moved_start else "off"
    kind: Kind = (usual if recipe.reference == "auto" else recipe.reference) if needed else "off"
    _check_reference(recipe, kind, needed)
    return kind


def looking(rows: collate.Speaking, examples: Sequence[Example]) -> collate.Speaking:
    """The rows of an evaluation: pairs stay pairs, also for an objective that learns from answers one by one."""
    return "pairs" if all(example.record.is_pair for example in examples) else rows


def _digest(config: Any, recipe: Recipe) -> str:
    """What besides the base's weights and the ids decides log-probs: the model's configuration, an adapter that goes
    on, and how ids are read that the model does not have."""
    said = config.to_dict()
    for key in ("_name_or_path", "transformers_version", "architectures", "use_cache"):
        said.pop(key, None)
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    if recipe.model.adapter:
        digest.update(adapter_files.fingerprint(recipe.model.adapter).encode())
    digest.update(getattr(recipe.adapter, "reading", "").encode())
    return digest.hexdigest()[:16]


def _check_start(recipe: Recipe) -> None:
    """Training that goes on from an adapter trains that adapter: a choice beside it would do nothing."""
    if recipe.model.adapter and rooms.text(recipe.adapter) != "lora":
        raise RecipeError(
            f"training goes on from model.adapter as it is; adapter={rooms.text(recipe.adapter)} would do nothing.",
            where="adapter",
            instead="Leave adapter out, or merge the old adapter into the model first.",
        )


def _check_reference(recipe: Recipe, kind: str, needed: bool) -> None:
    if not needed and recipe.reference != "auto":
        raise RecipeError(
            f"{rooms.text(recipe.objective)} uses no reference.", where="reference", instead="Leave it at auto."
        )
    if recipe.synchronise.every and not needed:
        raise RecipeError(
            f"{rooms.text(recipe.objective)} uses no reference that could follow.",
            where="synchronise.every",
            instead="Leave it at 0.",
        )
    if recipe.synchronise.every and kind != "snapshot":
        raise RecipeError(
            f"a reference that follows the policy cannot be {kind!r}.",
            where="reference",
            instead="Choose auto or snapshot.",
        )
    if needed and kind == "off" and recipe.moved_start:
        raise RecipeError(
            f"the model with its adapter off is not the reference: {recipe.moved_start}.",
            where="reference",
            instead="Choose cache or snapshot.",
        )


def _as_policy(reference: Reference) -> Callable[..., LogProbs]:
    """The reference where the policy is asked: before training they are one, and no divergence lies between them."""

    def score(batch: Batch, against: LogProbs | None = None, *, kl: bool = False) -> LogProbs:
        said = reference(batch) if against is None else against
        return said._replace(kl=torch.zeros_like(said.token)) if kl else said

    return score


def _same_frozen(before: Any, now: Any) -> bool:
    """Is ``now`` still ``before``, and will it stay so? Not if it trains, wears an adapter, or was changed by one."""
    own, other = before.state_dict(), now.state_dict()
    frozen = not any(p.requires_grad for p in now.parameters())
    return frozen and own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
