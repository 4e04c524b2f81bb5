"""A recipe: one choice from each room, a model, data, and the run's numbers. One YAML file, one frozen value."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from grainline.types import spec


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
    """Weights of the frozen model: auto = bfloat16 on CUDA where it is native, float32 elsewhere. Adapters stay float32."""
    device: str = "auto"
    """auto = CUDA, then MPS, then CPU; or a torch device such as cuda:1."""
    attn_implementation: str | None = None
    """transformers' attention for padded rows and generation: sdpa, eager, flash_attention_2...; null = its own choice."""
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
    weight: float = Field(1.0, gt=0)
    """Share in a mixture: how many times its rows are drawn in an epoch; 0.5 draws a random half."""


@spec
class EvaluationChoice:
    """Held-out data, when to look at it, and what follows from it."""

    data: dict[str, DataChoice] = Field(default_factory=dict)
    """Named held-out sets; the metrics of set x are logged as eval_x_*."""
    every: int = Field(0, ge=0)
    """Evaluate each so many steps; 0 = at the end only."""
    best: str | None = None
    """Metric that names the best checkpoint, e.g. eval_test_rewards/accuracies; a leading minus means lower is better."""
    patience: int = Field(0, ge=0)
    """Stop after so many evaluations without a new best; 0 = never."""


@spec
class CheckpointChoice:
    """When a run is written so that it can go on after anything."""

    every: int = Field(50, ge=0)
    """Save each so many steps; 0 = at the end only."""
    keep: int = Field(2, ge=1)
    """How many of the newest checkpoints stay on disk, beside the best one."""


@spec
class Recipe:
    """Everything that determines a run."""

    model: ModelChoice
    """Which model, and how it is held."""
    data: tuple[DataChoice, ...]
    """Training records: one source or a mixture."""
    evaluation: EvaluationChoice = EvaluationChoice()
    """Held-out data, when to look at it, and what follows from it."""
    checkpoints: CheckpointChoice = CheckpointChoice()
    """When a run is written so that it can go on after anything."""

    supervision: Any = "sequence"
    """Who speaks, and how loudly?"""
    objective: Any = "dpo"
    """What should the evidence look like?"""
    adapter: Any = "lora"
    """Which change is allowed?"""
    optimizer: Any = "adamw"
    """How is the change made?"""
    reference: Literal["auto", "off", "snapshot", "cache"] = "auto"
    """Who the reference is: the model with its adapter off, a frozen snapshot, or log-probs cached on disk before
    training. auto = cache."""

    steps: int | None = Field(None, ge=1)
    """Optimizer steps; null = as many as ``epochs`` asks for."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the data when ``steps`` is null."""
    batch_size: int = Field(16, ge=1)
    """Rows (pairs or labelled answers) in one optimizer step, over all processes."""
    max_length: int = Field(1024, ge=2)
    """Tokens of prompt + answer; longer prompts lose their oldest turns first."""
    max_tokens: int = Field(4096, ge=2)
    """Tokens in one forward pass. Sets memory and speed, never the result: a step is split into as many as it needs."""
    layout: Literal["auto", "tree", "packed", "padded"] = "auto"
    """How answers are laid out for the model. auto = the fastest that gives the plain model's numbers."""
    sampler: Literal["shuffle", "sequential", "by_prompt"] = "shuffle"
    """Order of rows: shuffled anew each epoch, as in the file, or shuffled with all rows of a prompt together."""
    schedule: str = "linear"
    """transformers' learning-rate schedule: linear, cosine, constant, constant_with_warmup..."""
    warmup: float = Field(0.1, ge=0)
    """Warm-up steps; below 1, a share of all steps."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Clip the gradient's L2 norm here; 0 = do not clip."""
    seed: int = 0
    """Seeds the adapter's start, the order of rows and all else that is random."""
    skip_bad_rows: bool = False
    """Leave out rows that cannot be used, and count them, instead of refusing to start."""
    trackers: tuple[str, ...] = ()
    """accelerate's trackers by name: tensorboard, wandb, mlflow..."""
    out: str = "runs/latest"
    """The run's folder."""
