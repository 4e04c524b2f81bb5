"""A run, or a model alone, with its weights in memory: its policy, and what training started from beside it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors import safe_open

from grainline import adapter_files, export, heads, models
from grainline.engine import Engine
from grainline.evaluation.preferences import Evaluation, Look
from grainline.evaluation.speakers import Speaker, Subject
from grainline.recipe import Recipe
from grainline.types import Batch, Example, LogProbs

LEAST = 64
"""Tokens of a forward below which a memory that is full is no matter of its size."""


class Measured(NamedTuple):
    """Who is measured."""

    recipe: Recipe
    adapter: Path | None  # None: the recipe's model alone
    name: str

    @property
    def told(self) -> dict[str, str]:
        return {"kind": "model" if self.adapter is None else "run", "name": self.name}


class Bench:
    """``of`` with its weights in memory. ``examples``: rows that it will be asked of, to choose the layout by.

    The reference is the policy with its adapter off, or, where that is not where training started, a copy of what was.
    """

    def __init__(self, of: Measured, examples: Sequence[Example], accelerator: Accelerator) -> None:
        loaded = models.load(of.recipe.model)
        self.of, self.accelerator = of, accelerator
        self.engine = Engine.build(of.recipe, loaded.model, examples, accelerator)
        reference = self._adopt(of.adapter) if of.adapter is not None else None
        self.voices = Subject(
            Speaker("policy", self.engine.scorer.eval(), nullcontext),
            reference,
            loaded.tokenizer,
            getattr(of.recipe.adapter, "placed", None),
            self.engine.layout,
            accelerator.device,
        )

    @property
    def key(self) -> dict[str, Any]:
        """What the weights are."""
        return {
            "sha256": self.engine.fingerprint,
            "adapter_sha256": fingerprint(self.of.adapter) if self.of.adapter else None,
            "dtype": str(next(self.engine.scorer.parameters()).dtype).removeprefix("torch."),
        }

    def rows(self, examples: Sequence[Example], look: Look) -> Evaluation:
        """Held-out rows measured, shared by all processes; alone, in smaller forwards where the memory ends."""
        reference = self.against if self.voices.reference else None
        while True:
            try:
                return self.engine.evaluate(examples, reference, look=look)
            except torch.OutOfMemoryError:
                half = self.engine.recipe.tokens_at_once // 2
                if half < LEAST or self.accelerator.num_processes > 1:  # others would wait for forwards that never come
                    raise
                self.engine.recipe = dataclasses.replace(self.engine.recipe, max_tokens=half)
                torch.cuda.empty_cache()

    def against(self, batch: Batch) -> LogProbs:
        """What the reference says of ``batch``, with all that the objective and the divergence look at."""
        reference, kept = self.voices.reference, self.engine.kept
        assert reference is not None
        with torch.no_grad(), reference.within():
            return reference.scorer(
                batch.to(self.accelerator.device), keep=kept if "layers" in kept else tuple({*kept, "hidden"})
            )

    def _adopt(self, adapter: Path) -> Speaker:
        """Put the trained adapter on; the reference."""
        engine, recipe = self.engine, self.of.recipe
        head = engine.scorer.causal.get_output_embeddings()
        engine.scorer.reference_head = copy.deepcopy(head).requires_grad_(False)
        off = (adapter / adapter_files.CONFIG).is_file() and not recipe.moved_start
        started = None if off else engine.frozen(copy.deepcopy(engine.scorer.model))
        name = "policy" if recipe.model.adapter else "default"  # "default" is then the adapter training started from
        with engine.scorer.plain() as model:
            trained = export.load_adapter(model, adapter, name=name)
        engine.adopt(trained)
        self._heads(adapter.parent)
        return Speaker("reference", started or engine.scorer, nullcontext if started else engine.adapter_off)

    def _heads(self, run: Path) -> None:
        """Put the objective's own modules beside the model, where the run still keeps them: in the checkpoint that the
        adapter was written from."""
        results = run / "results.json"
        step = json.loads(results.read_text(encoding="utf-8"))["step"] if results.is_file() else 0
        kept = run / "checkpoints" / f"step-{step:06d}" / "state.safetensors"
        if not kept.is_file():
            return
        begin = "model.heads."
        with safe_open(kept, "pt") as opened:
            tensors = {k.removeprefix(begin): opened.get_tensor(k) for k in opened.keys() if k.startswith(begin)}  # noqa: SIM118
        if tensors:
            heads.attach(self.of.recipe.objective, self.engine.scorer)
            self.engine.scorer.heads.load_state_dict(tensors)  # type: ignore[union-attr]
            self.engine.scorer.requires_grad_(False).eval()


def fingerprint(adapter: Path) -> str:
    """Of an adapter's two files, or of a whole model's weights."""
    if (adapter / adapter_files.CONFIG).is_file():
        return adapter_files.fingerprint(adapter)
    digest = hashlib.sha256()
    for file in sorted(adapter.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
