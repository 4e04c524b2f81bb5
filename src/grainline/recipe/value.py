"""The recipe as a frozen value: one choice from each room, a model, data, and the run's numbers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from grainline import rooms
from grainline.recipe.preset import ROOMS
from grainline.types import spec

DEFAULTS = {"supervision": "sequence", "objective": "dpo", "adapter": "lora", "optimizer": "adamw"}
"""What stands in a room when nothing is said."""

TOKENS_AT_ONCE = 1024
"""``max_tokens`` where nothing is said, and as long as ``auto`` is not settled."""

_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(_BYTES)})")


@spec
class ModelChoice:
    """Which model, and how it is held."""

    name: str
    """Hub id, folder, or an alias such as smollm2-135m-instruct."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    adapter: str | None = None
    """An existing PEFT adapter to continue from; its frozen copy is the reference."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights of the frozen model: auto = bfloat16 on CUDA where it is native, else float32. Adapters stay float32."""
    device: str = "auto"
    """auto = CUDA, then MPS, then CPU; or a torch device such as cuda:1."""
    attn_implementation: str | None = None
    """transformers' attention for padded rows and generation: sdpa, eager, flash_attention_2...; null = its choice."""
    load_in_4bit: bool = False
    """Hold frozen linear layers in 4 bits (bitsandbytes, where it has a backend for the device)."""
    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass: less memory, about a third more time."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read it."""


@spec
class DataChoice:
    """One source of records."""

    path: str
    """File (.jsonl, .json, .parquet, .arrow, also .gz), folder, or hub id."""
    split: str = "train"
    """Split of a hub id or folder."""
    format: str = ""
    """Public data set whose own columns the rows have: helpsteer, ultrafeedback, prm800k...; empty = ours and TRL's."""
    weight: float = Field(default=1.0, gt=0)
    """Share in a mixture: how many times its rows are drawn in an epoch; 0.5 draws a random half."""


@spec
class HeldOutChoice:
    """One source of records that are never trained on."""

    path: str
    """File (.jsonl, .json, .parquet, .arrow, also .gz), folder, or hub id."""
    split: str = "test"
    """Split of a hub id or folder."""
    format: str = ""
    """Public data set whose own columns the rows have: helpsteer, ultrafeedback, prm800k...; empty = ours and TRL's."""


@spec
class EvaluationChoice:
    """Held-out data, when to look at it, and what follows from it."""

    data: dict[str, HeldOutChoice] = Field(default_factory=dict)
    """Named held-out sets; the metrics of set x are logged as eval_x_*."""
    every: int = Field(default=0, ge=0)
    """Evaluate each so many steps; 0 = at the end only."""
    best: str | None = None
    """Metric that names the best checkpoint, e.g. eval_test_rewards/accuracies; a leading minus: lower is better."""
    patience: int = Field(default=0, ge=0)
    """Stop after so many evaluations without a new best; 0 = never."""
    geometry: bool = False
    """Also log what the adapter did to the weights (energy, change, angle and spectrum, means of 12 matrices)."""

    samples: int = Field(default=3, ge=0)
    """Prompts answered by the policy, beside the reference's answer, once the run is done."""
    temperature: float = Field(default=0.0, ge=0)
    """Of these answers: 0 = the likeliest token each time; above, drawn with the run's seed, the same for both."""


@spec
class CheckpointChoice:
    """When a run is written so that it can go on after anything."""

    every: int = Field(default=50, ge=0)
    """Save each so many steps; 0 = at the end only."""
    keep: int = Field(default=2, ge=1)
    """How many of the newest checkpoints stay on disk, beside the best one."""


@spec
class SynchroniseChoice:
    """A reference that follows the policy (TR-DPO). It is then a frozen snapshot, never a cache."""

    every: int = Field(default=0, ge=0)
    """Move the reference each so many steps; 0 = it stays where training starts."""
    share: float = Field(default=0.6, gt=0, le=1)
    """How far: 1 = it becomes the policy; TR-DPO's soft update uses 0.6."""


@spec
class Recipe:
    """Everything that determines a run."""

    model: ModelChoice
    """Which model, and how it is held."""
    data: tuple[DataChoice, ...] = Field(min_length=1)
    """Training records: one source or a mixture."""
    curate: tuple[Any, ...] = ()
    """Steps of curation that training records go through first, in order, each source by itself; made once and kept."""
    evaluation: EvaluationChoice = EvaluationChoice()
    """Held-out data, when to look at it, and what follows from it."""
    checkpoints: CheckpointChoice = CheckpointChoice()
    """When a run is written so that it can go on after anything."""

    supervision: Any = Field(default=DEFAULTS["supervision"], validate_default=True)
    """Who speaks, and how loudly?"""
    objective: Any = Field(default=DEFAULTS["objective"], validate_default=True)
    """What should the evidence look like?"""
    adapter: Any = Field(default=DEFAULTS["adapter"], validate_default=True)
    """Which change is allowed?"""
    optimizer: Any = Field(default=DEFAULTS["optimizer"], validate_default=True)
    """How is the change made?"""
    reference: Literal["auto", "off", "snapshot", "cache"] = "auto"
    """Who the reference is: the model with its adapter off, a frozen snapshot, or log-probs cached on disk before
    training. auto = cache, unless the objective needs too much of the reference for a disk, or it is synchronised."""
    synchronise: SynchroniseChoice = SynchroniseChoice()
    """Whether, and how, the reference follows the policy."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; null = as many as ``epochs`` asks for."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data when ``steps`` is null."""
    batch_size: int | Literal["auto"] = 16
    """Rows (pairs or labelled answers) in one optimizer step, over all processes. It decides what is learnt. auto = the
    most of which (nearly) every step is one forward of ``max_tokens``, settled before the first step."""
    max_length: int = Field(default=1024, ge=2)
    """Tokens of prompt + answer; longer prompts lose their oldest turns first."""
    max_tokens: int | Literal["auto"] = TOKENS_AT_ONCE
    """Tokens in one forward pass. Sets memory and speed, never the result: a step is split into as many as it needs.
    auto = the most that ``memory`` allows, measured once when the run starts."""
    memory: str = "auto"
    """What the process may hold, for max_tokens=auto: 8GB, 500MB; auto = a share of what is free on the device."""
    layout: Literal["auto", "tree", "packed", "padded"] = "auto"
    """How answers are laid out for the model. auto = the fastest that gives the plain model's numbers."""
    fuse: bool = True
    """Take a decoder's small operations as fewer, larger ones where they are proved to give the same numbers: less time
    and memory, most of all in bfloat16."""
    shard: bool = False
    """Share the frozen weights out over all processes (FSDP2), for a model that one device cannot hold beside its
    activations; what trains stays whole in each. Costs time: every forward fetches every layer."""
    sampler: Literal["shuffle", "sequential", "by_prompt"] = "shuffle"
    """Order of rows: shuffled anew each epoch, as in the file, or shuffled with all rows of a prompt together."""
    schedule: str = "linear"
    """transformers' learning-rate schedule: linear, cosine, constant, constant_with_warmup..."""
    warmup: float = Field(default=0.1, ge=0)
    """Warm-up steps; below 1, a share of all steps."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Clip the gradient's L2 norm here; 0 = do not clip."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds the adapter's start, the order of rows and all else that is random."""
    skip_bad_rows: bool = False
    """Leave out rows that cannot be used, and count them, instead of refusing to start."""
    trackers: tuple[str, ...] = ()
    """accelerate's trackers by name: tensorboard, wandb, mlflow..."""
    out: str = "runs/latest"
    """The run's folder."""

    @property
    def moved_start(self) -> str:
        """Why the model with its adapter off is not where training starts; empty where it is."""
        if self.model.adapter:
            return "training starts from an adapter"
        return "this adapter changes the base weights" if self.adapter.changes_base else ""

    @property
    def tokens_at_once(self) -> int:
        """``max_tokens``, or what goes for it as long as it is not settled."""
        return TOKENS_AT_ONCE if self.max_tokens == "auto" else self.max_tokens

    @property
    def memory_bytes(self) -> int | None:
        """``memory`` in bytes; None for auto."""
        if self.memory == "auto":
            return None
        found = _SIZE.fullmatch(self.memory)
        assert found is not None  # checked when the value was made
        return round(float(found[1]) * _BYTES[found[2]])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from grainline.recipe import notebook

        return notebook.html(self)

    @field_validator("max_tokens", mode="plain", json_schema_input_type=Annotated[int, Field(ge=2)] | Literal["auto"])
    @classmethod
    def _budget(cls, value: Any) -> Any:
        return _whole(value, 2)

    @field_validator("batch_size", mode="plain", json_schema_input_type=Annotated[int, Field(ge=1)] | Literal["auto"])
    @classmethod
    def _rows(cls, value: Any) -> Any:
        return _whole(value, 1)

    @field_validator("memory")
    @classmethod
    def _size(cls, value: str) -> str:
        if value == "auto" or ((found := _SIZE.fullmatch(value)) and float(found[1]) > 0):
            return value
        raise PydanticCustomError("size", "Input should be a size such as 8GB or 500MB, or auto")

    @field_validator(*ROOMS, mode="before")
    @classmethod
    def _resolve(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        return rooms.resolve(ROOMS[str(info.field_name)], value)

    @field_validator("curate", mode="before")
    @classmethod
    def _steps(cls, value: Any) -> Any:
        steps = value if isinstance(value, (list, tuple)) else [value]
        return tuple(rooms.resolve("curation", step) for step in steps)


def _whole(value: Any, least: int) -> Any:
    """A number that may be left open."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        return value
    raise PydanticCustomError("whole", "Input should be a whole number of at least {least}, or auto", {"least": least})


MAY_CHANGE = {
    "out": "a folder may be moved",
    "trackers": "they watch",
    "checkpoints": "when a state is written does not change it",
    "evaluation": "looking changes nothing that is learnt; patience only ends the run sooner",
    "max_tokens": "it sets memory and speed, never the result, so a run that ran out of memory can go on",
    "memory": "it decides max_tokens where that is auto",
    "model.device": "a run may go on elsewhere, equal up to rounding",
    "model.gradient_checkpointing": "it trades memory for time",
    "shard": "it decides where frozen weights are, never what they are",
}
"""Keys that another recipe may set differently and still resume a run, each with the reason."""
