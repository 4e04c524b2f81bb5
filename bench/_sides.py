"""The sides that are compared. A side is given the number of a step and leaves its loss's gradient in the adapter.

All begin with the same token ids, the same weights and the same adapter, and end with the backward pass; laying out the
batch is part of the step. Nothing is updated, so each step can be done again by the next side.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import _machine
import _models
import _rows
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from _heads import AnswerPositions
from grainline import cpu, models
from grainline.adapters import _seam as adapters
from grainline.adapters.lora import LoRA
from grainline.data import collate
from grainline.forward import Scorer, parts, voices
from grainline.objectives._seam import Objective
from grainline.objectives.dpo import DPO
from grainline.reduction import share, totals
from grainline.reference_cache import ReferenceCache
from grainline.types import Batch, Example, Layout, LogProbs

ADAPTER = LoRA(rank=16, alpha=32)  # on all linear layers
BETA = 0.1


class Ours(NamedTuple):
    """How a step of ours is done; the defaults are the library's own."""

    layout: Layout = "tree"
    shared: bool = True  # a prompt is read once for all pairs of its question; else each pair reads its own
    cached: bool = False  # the reference is read, not computed
    dtype: str = "as asked"  # of the frozen weights
    scorer: Callable[[nn.Module], Scorer] = Scorer
    fused: bool = True  # a decoder's small operations as fewer, larger ones
    products: bool = True  # attention by plain products on a CPU, else torch's fused attention
    onednn: bool = True  # float32 products by oneDNN, where that is faster, else by MKL
    recomputed: bool = False  # layers keep no activations, and run again in backward
    inputs_learn: bool = False  # backward goes down to the embeddings, below the first adapted layer
    by_prompt: bool = True  # steps hold the pairs of one question (as the rows of ``--data qa`` are made), else mixed
    objective: Objective = DPO(beta=BETA)


class Peer(NamedTuple):
    """How a step of TRL's is done."""

    cached: bool = False
    sorted: bool = False  # batches of like length


class Side(NamedTuple):
    title: str
    how: Ours | Peer


PLAIN = Ours(layout="packed", shared=False, scorer=AnswerPositions, fused=False, products=False, onednn=False)
"""What one would write down: packed sequences, torch's attention, logits at answers, all float32 products MKL's."""

SIDES = {
    "trl": Side("TRL DPOTrainer", Peer()),
    "trl-best": Side("TRL, reference cached, sorted", Peer(cached=True, sorted=True)),
    "tree": Side("Grainline", Ours()),
    "cache": Side("Grainline, reference cached", Ours(cached=True)),
    "pair-trees": Side("Grainline, one tree a pair", Ours(shared=False)),
    "packed": Side("Grainline, two sequences a pair", Ours(layout="packed", shared=False)),
    "padded": Side("Grainline, the same, padded", Ours(layout="padded", shared=False)),
    "plain": Side("two sequences a pair without other levers", PLAIN),
}


class Step(NamedTuple):
    """A side, ready: ``run(i)`` does step ``i`` (0-based, warm-up included) and gives its loss."""

    run: Callable[[int], float]
    model: nn.Module
    grainline: Grainline | None = None  # of a side of ours


class Bench:
    """The models of the sides asked for, and the steps they are to do. Sides that can share a model do."""

    def __init__(self, options: Any) -> None:
        warnings.simplefilter("ignore", FutureWarning)  # transformers' renamings, met by TRL and PEFT
        torch.set_num_threads(options.threads)
        self.device, self.options, self._made = models.device(options.device), options, {}
        # Accelerate's state is one for the whole process; ours never enters its autocast.
        mixed = "bf16" if options.dtype == "bfloat16" else "no"
        self.accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision=mixed)
        self.tokenizer = _models.tokenizer(options.model, _rows.DATA)
        self.rows = _rows.read(options, self.tokenizer)

    def side(self, how: Ours | Peer) -> Step:
        return self.peer(how) if isinstance(how, Peer) else self.ours(how)

    def ours(self, how: Ours) -> Step:
        dtype = self.options.dtype if how.dtype == "as asked" else how.dtype
        scorer = how.scorer(self._once(dtype, lambda: self._adapted(dtype)))
        grainline = Grainline(scorer, how, self.options.max_tokens, self.accelerator)
        timed = self.rows.steps if how.by_prompt else _rows.mixed(self.rows.steps)
        steps = [step if how.shared else _rows.apart(step) for step in (*self.rows.warm, *timed)]
        if how.fused:
            scorer.fuse()
        if not how.products:
            scorer.by_products = False
        if how.cached:
            grainline.cache = grainline.cached(batch for examples in steps for batch in grainline.forwards(examples))
        return Step(lambda i: grainline(steps[i]), scorer, grainline)

    def trl(self) -> Any:
        """TRL's trainer with its own copy of the model; one for all of its sides."""
        from _peer import Trl

        def make() -> Trl:
            model = self.model("float32")
            made = Trl(model, self.tokenizer, ADAPTER.config(model), beta=BETA, options=self.options)
            fill_adapter(made.model)
            return made

        return self._once("trl", make)

    def peer(self, how: Peer) -> Step:
        trl = self.trl()
        rows = trl.with_reference if how.cached else trl.rows
        steps = [rows(s) for s in (*self.rows.warm, *(self.rows.sorted if how.sorted else self.rows.steps))]
        return Step(lambda i: trl.step(steps[i]).item(), trl.model)

    def model(self, dtype: str) -> nn.Module:
        return _models.model(self.options.model, len(self.tokenizer), dtype=dtype, device=self.device)

    def _adapted(self, dtype: str) -> nn.Module:
        model = self.model(dtype)
        first = getattr(self.options, "first_layer", 0)
        layers = tuple(range(first, model.config.get_text_config().num_hidden_layers)) if first else None
        model = adapters.attach(dataclasses.replace(ADAPTER, layers=layers), model).train()
        fill_adapter(model)
        return model

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class Grainline:
    """One forward-backward of ``grainline.trainer.fit``, done in a given way."""

    def __init__(self, scorer: Scorer, how: Ours, max_tokens: int, accelerator: Accelerator) -> None:
        self.scorer, self.how, self.layout = scorer, how, how.layout
        self.max_tokens, self.accelerator = max_tokens, accelerator
        self.module: nn.Module = scorer  # what is called for the policy: the scorer, or what is wrapped around it
        self.objective = how.objective
        self.kept = parts(self.objective.needs)  # of the reference, beside log-probs
        self.cache: ReferenceCache | None = None  # if there, the reference is read, not computed

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The model as this side wants it: sides share it."""
        self.scorer.use(packed=self.layout != "padded")
        causal, switched = self.scorer.causal, []
        matmul: Any = torch.backends.mkldnn.matmul
        if not self.how.onednn:
            matmul.fp32_precision = "ieee"  # a program's own word, which the library heeds
            switched.append(lambda: setattr(matmul, "fp32_precision", "none"))
        if self.how.recomputed:
            causal.activation_checkpointing_enable({"use_reentrant": False})
            switched.append(causal.activation_checkpointing_disable)
        if self.how.inputs_learn:
            causal.enable_input_require_grads()
            switched.append(causal.disable_input_require_grads)
        try:
            with cpu.full_width(self.how.onednn and self.accelerator.device.type == "cpu"):
                yield
        finally:
            for off in switched:
                off()

    def cached(self, forwards: Iterable[Batch]) -> ReferenceCache:
        """What the reference says of ``forwards``; on disk as long as this side lives."""
        self._folder = tempfile.TemporaryDirectory()
        with self.ready():
            cache = ReferenceCache(Path(self._folder.name), self.kept)
            cache.fill(forwards, self.without_adapter)
        return cache

    def forwards(self, examples: Sequence[Example]) -> list[Batch]:
        parts = collate.pack(examples, max_tokens=self.max_tokens, layout=self.layout)
        return [collate.collate(part, layout=self.layout).to(self.accelerator.device) for part in parts]

    @torch.no_grad()
    def without_adapter(self, batch: Batch) -> LogProbs:
        with self.scorer.model.disable_adapter():
            return self.scorer(batch, keep=self.kept) if self.kept else self.scorer(batch)

    def __call__(self, examples: Sequence[Example]) -> float:
        with self.ready():
            return self._step(self.forwards(examples))

    def _step(self, forwards: Sequence[Batch]) -> float:
        value = 0.0
        counted = totals(self.objective, forwards, self.accelerator)
        for batch in forwards:
            policy, reference = voices(self.module, self.cache or self.without_adapter, batch, self.objective.needs)
            loss = share(self.objective(policy, reference, batch.facts, {}), batch.facts.weight, counted)
            loss.backward()
            value += loss.item()
        return value


def peak_of(bench: Bench, side: Step, step: int) -> float:
    """MiB at the peak of this process, which did nothing else before, while ``side`` does ``step`` after another."""
    for i in (0, step):
        if i:
            _machine.reset_peak(bench.device)
        side.run(i)
        take_gradient(side.model)
    return _machine.peak_mib(bench.device)


@torch.no_grad()
def fill_adapter(model: nn.Module) -> None:
    """The same adapter everywhere, with a B that is not zero, so that no gradient is."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def take_gradient(model: nn.Module) -> Tensor:
    """All of the adapter's gradient as one vector; leaves none behind."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return gradient
