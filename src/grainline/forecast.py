"""What a run will take, before any weight is loaded: tokens, steps, memory, work. ``grainline plan`` prints it.

Counted exactly, from the recipe's own rows in its own order: rows, tokens, steps, forwards, trainable parameters.
Estimated: FLOPs and memory, from one forward on a model without weights (:mod:`grainline.footprint`); the layout, which
a run makes sure of on the real weights. Seconds need a machine: :mod:`grainline.rehearsal` measures them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from grainline import adapter_files, footprint, heads, models, sharding
from grainline.adapters import _seam as adapters
from grainline.course import Course, Steps, lay_out
from grainline.engine import possible_layouts, reference_kind, trainable
from grainline.footprint import Cost
from grainline.optimizers import _seam as optimizers
from grainline.prepare import Prepared
from grainline.types import Batch

if TYPE_CHECKING:
    from grainline.recipe import Recipe

_FOUR_BITS = 4.127 / 8
"""Bytes a weight of bitsandbytes' nf4 with double quantisation."""
FETCHED = 2
"""Layers that a process holds whole at a time where weights are shared out: the one it reads, and the next."""


class Data(NamedTuple):
    """The training rows, in tokens. Counted."""

    rows: int
    prompts: int  # distinct ones
    prompt_tokens: int  # of all rows
    answer_tokens: int
    longest: int  # prompt + answer
    truncated_prompts: int
    truncated_answers: int
    left_out: int


class Trainable(NamedTuple):
    """What trains: the adapter, and the objective's own modules. Counted."""

    roles: dict[str, int]  # role -> parameters
    total: int
    parameters: int  # of the whole model, and of the objective's own modules
    adapter_bytes: int  # on disk


class Memory(NamedTuple):
    """Bytes of one process. Estimated; None where the architecture does not say without weights."""

    weights: dict[str, int]  # dtype -> bytes
    reference: int  # a second copy of the weights, for reference=snapshot
    adapter: int  # what trains, gradients, optimizer state, what the adapter holds frozen; gradients being exchanged
    activations: int | None  # what autograd keeps of the largest forward and of the objective's own modules, and masks
    logits: int  # one chunk of the vocabulary's scores
    process: int  # Python and its libraries, on a CPU
    on_disk: int  # the reference's log-probs
    fetched: int = 0  # with shard=true: layers that are whole while they are read
    start: int = 0  # with shard=true on a CPU: weights and adapter whole, as they are before they are shared out

    @property
    def total(self) -> int | None:
        """At the run's largest forward, or at its start where that takes more; without the disk."""
        parts = (sum(self.weights.values()), self.reference, self.adapter, self.fetched, self.logits)
        reading = None if self.activations is None else sum(parts) + self.activations
        return None if reading is None else max(reading, self.start) + self.process


class Work(NamedTuple):
    """FLOPs. Estimated; a multiply-add counts two."""

    training: float
    reference: float  # before training; less what earlier runs have left in the cache
    evaluation: float  # all looks at held-out data

    @property
    def total(self) -> float:
        return sum(self)


class Estimate(NamedTuple):
    """What a run will take."""

    data: Data
    trainable: Trainable
    steps: Steps
    memory: Memory
    work: Work | None  # None where the architecture does not say without weights
    course: Course
    cost: Cost | None
    source: str  # the model, in one sentence
    processes: int = 1  # counts and work are of all of them together, memory is of each

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = {name: getattr(self, name)._asdict() for name in ("data", "trainable", "steps", "memory")}
        found["memory"]["total"] = self.memory.total
        work = None if self.work is None else self.work._asdict() | {"total": self.work.total}
        return {"model": self.source, "processes": self.processes, **found, "flops": work}


def forecast(recipe: Recipe, prepared: Prepared, processes: int = 1) -> Estimate:
    """What carrying out ``recipe`` on its ``prepared`` data will take; of the model it reads the configuration alone.

    Raises:
        UserError: what a run would refuse, as far as that shows without weights.
    """
    if recipe.shard:
        sharding.check_sharing(recipe, reference_kind(recipe), processes)
    course = lay_out(recipe, prepared, possible_layouts(recipe)[0], processes)
    empty = models.empty(_without_checkpointing(recipe))
    layers = sharding.layers_of(empty.model) if recipe.shard else []
    whole, weights = (_weights(recipe, empty.model, layers, n) for n in (1, processes))
    largest = max((sum(p.nbytes for p in layer.parameters()) for layer in layers), default=0)
    base = {id(tensor): tensor for tensor in _tensors(empty.model)}  # held: one that is gone would give its id away
    model, factor = _attach(recipe, empty.model)
    modules = _own(recipe, empty.model)
    learnt, own = trainable(recipe, model), heads.tagged(modules)
    tagged = [*learnt, *own]
    added = sum(tensor.nbytes for tensor in _tensors(model) if id(tensor) not in base and not tensor.requires_grad)
    roles: Counter[str] = Counter()
    for _, tensor, role in tagged:
        roles[role] += tensor.numel()
    held, beside = (sum(tensor.nbytes for _, tensor, _ in some) for some in (learnt, own))
    parameters = empty.model.num_parameters() + sum(tensor.numel() for _, tensor, _ in own)
    counted = Trainable(dict(roles), roles.total(), parameters, factor * held)
    optimizer = optimizers.build(recipe.optimizer, tagged, steps=course.steps.steps)
    state = footprint.optimizer_state(optimizer, tagged)
    adapter = (1 if recipe.adapter.config(empty.model) is None else 2) * held  # the tensors are counted as the base's
    exchanged = held + beside if processes > 1 and not recipe.shard else 0  # in DDP's own buckets
    on_cpu = empty.device.type == "cpu"
    cost = _cost(recipe, model, course.largest, on_cpu=on_cpu, beside=modules)
    memory = Memory(
        weights=weights,
        reference=sum(weights.values()) if reference_kind(recipe) == "snapshot" else 0,
        adapter=adapter + added + 2 * beside + state + exchanged,
        activations=None if cost is None else cost.kept + _masks(course.largest, empty.dtype.itemsize),
        logits=footprint.logits(empty.model, course.largest.target.numel()),
        process=footprint.resident() if on_cpu else 0,
        on_disk=_on_disk(recipe, prepared),
        fetched=FETCHED * largest,
        start=sum(whole.values()) + held + added if layers and on_cpu else 0,
    )
    work = None if cost is None else _work(cost, course)
    data = _data(prepared)
    return Estimate(data, counted, course.steps, memory, work, course, cost, empty.source, processes)


def _data(prepared: Prepared) -> Data:
    examples, counts = prepared.train, prepared.facts["counts"]
    return Data(
        rows=len(examples),
        prompts=len({example.prompt for example in examples}),
        prompt_tokens=sum(len(example.prompt) for example in examples),
        answer_tokens=sum(len(answer.ids) for example in examples for answer in example.answers),
        longest=max(len(e.prompt) + len(answer.ids) for e in examples for answer in e.answers),
        truncated_prompts=counts["truncated_prompts"],
        truncated_answers=counts["truncated_answers"],
        left_out=counts["left_out"],
    )


# ----------------------------------------------------------------------------------------------------------- the model


def _without_checkpointing(recipe: Recipe) -> models.Choice:
    asked = {field: getattr(recipe.model, field) for field in models.Choice._fields}
    return models.Choice(**asked | {"gradient_checkpointing": False})


def _attach(recipe: Recipe, model: Any) -> tuple[Any, int]:
    """``model`` with the recipe's adapter, or the one it goes on from, as shapes; and how much larger it is on disk."""
    import peft

    models.disable_dropout(model)
    if recipe.model.adapter is not None:
        config = adapter_files.read_config(Path(recipe.model.adapter))
        config.inference_mode = False
        with adapters.buffers_as_shapes():
            return peft.get_peft_model(model, config), 1
    attached = adapters.attach_shapes(recipe.adapter, model)
    twice = recipe.adapter.changes_base and str(getattr(recipe.adapter, "init", "")).startswith(
        ("pissa", "olora", "lora_ga")
    )
    return attached, 2 if twice else 1  # what moves the base is shipped at twice the rank


def _tensors(model: Any) -> Iterator[Any]:
    """All that a model holds."""
    return itertools.chain(model.parameters(), model.buffers())


def _own(recipe: Recipe, model: Any) -> Any:
    """The objective's own modules, as shapes: their initial values may be as many as a vocabulary."""
    with torch.device("meta"):
        return heads.beside(recipe.objective, model)


def _weights(recipe: Recipe, model: Any, shared: Sequence[Any], processes: int) -> dict[str, int]:
    """dtype -> bytes of the base in each of ``processes``, which hold parts of the layers that are ``shared``."""
    from torch import nn

    head = model.get_output_embeddings()
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear) and m is not head}
    parts = {id(parameter) for layer in shared for parameter in layer.parameters()}
    found: dict[str, int] = {}
    for parameter in model.parameters():
        short = recipe.model.load_in_4bit and id(parameter) in linear
        dtype = "4 bits" if short else str(parameter.dtype).removeprefix("torch.")
        held = sharding.part(parameter, processes) if id(parameter) in parts else parameter.nbytes
        found[dtype] = found.get(dtype, 0) + (round(parameter.numel() * _FOUR_BITS) if short else held)
    return found


def _cost(recipe: Recipe, model: Any, batch: Batch, *, on_cpu: bool, beside: Any) -> Cost | None:
    """What a forward costs; None for an architecture that cannot be read without weights."""
    states = model.config.get_text_config().num_hidden_layers if "reference_layers" in recipe.objective.needs else 1
    more: dict[str, Any] = {"fuse": recipe.fuse, "on_cpu": on_cpu, "beside": beside, "states": states}
    try:
        whole = footprint.cost(model, batch, **more)
        if not recipe.model.gradient_checkpointing:
            return whole
        models.checkpoint_layers(model.get_base_model() if hasattr(model, "get_base_model") else model)
        spared = footprint.cost(model, batch, **more)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    layers = model.config.get_text_config().num_hidden_layers
    return spared._replace(kept=spared.kept + whole.kept // layers)  # one layer at a time is there again


def _masks(batch: Batch, size: int) -> int:
    return footprint.size(batch).squares * size if batch.trees else 0


def _on_disk(recipe: Recipe, prepared: Prepared) -> int:
    """Bytes of the reference's log-probs: float32 a token, and address and end of each distinct answer."""
    if reference_kind(recipe) != "cache":
        return 0
    rows = [*prepared.train, *(row for held_out in prepared.held_out.values() for row in held_out)]
    answers = {(row.prompt, answer.ids) for row in rows for answer in row.answers}
    return sum(4 * len(ids) + 40 for _, ids in answers)


def _work(cost: Cost, course: Course) -> Work:
    training = cost.flops(course.sizes, train=True) + course.each_step * cost.flops(course.sizes, train=False)
    looks = course.looks * cost.flops(course.held_out, train=False)
    return Work(training, cost.flops(course.once, train=False), looks)
