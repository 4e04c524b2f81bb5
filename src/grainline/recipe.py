"""A recipe: one choice from each room, a model, data, and the run's numbers. One YAML file, one frozen value.

:func:`load` reads what a person writes (shorthands, presets, overrides, TRL's names) into a :class:`Recipe`, in which
every room holds the value of a method; :func:`dump` writes a recipe out in full, so that ``load`` gives it back. Paths
of data are relative to the current directory, in a file too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import reprlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field, field_validator

from grainline import _yaml, rooms
from grainline._draft import ANY, Draft, Place
from grainline.errors import RecipeError, nearest
from grainline.presets import ROOMS, Preset, presets
from grainline.types import spec

__all__ = [
    "MAY_CHANGE",
    "CheckpointChoice",
    "DataChoice",
    "EvaluationChoice",
    "HeldOutChoice",
    "ModelChoice",
    "Preset",
    "Recipe",
    "as_dict",
    "differences",
    "dump",
    "fingerprint",
    "load",
    "presets",
    "schema",
    "text",
]

_DEFAULTS = {"supervision": "sequence", "objective": "dpo", "adapter": "lora", "optimizer": "adamw"}


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
    weight: float = Field(default=1.0, gt=0)
    """Share in a mixture: how many times its rows are drawn in an epoch; 0.5 draws a random half."""


@spec
class HeldOutChoice:
    """One source of records that are never trained on."""

    path: str
    """File (.jsonl, .json, .parquet, .arrow, also .gz), folder, or hub id."""
    split: str = "test"
    """Split of a hub id or folder."""


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

    samples: int = Field(default=3, ge=0)
    """Prompts answered by the policy, beside the reference's answer, once the run is done."""


@spec
class CheckpointChoice:
    """When a run is written so that it can go on after anything."""

    every: int = Field(default=50, ge=0)
    """Save each so many steps; 0 = at the end only."""
    keep: int = Field(default=2, ge=1)
    """How many of the newest checkpoints stay on disk, beside the best one."""


@spec
class Recipe:
    """Everything that determines a run."""

    model: ModelChoice
    """Which model, and how it is held."""
    data: tuple[DataChoice, ...] = Field(min_length=1)
    """Training records: one source or a mixture."""
    evaluation: EvaluationChoice = EvaluationChoice()
    """Held-out data, when to look at it, and what follows from it."""
    checkpoints: CheckpointChoice = CheckpointChoice()
    """When a run is written so that it can go on after anything."""

    supervision: Any = Field(default=_DEFAULTS["supervision"], validate_default=True)
    """Who speaks, and how loudly?"""
    objective: Any = Field(default=_DEFAULTS["objective"], validate_default=True)
    """What should the evidence look like?"""
    adapter: Any = Field(default=_DEFAULTS["adapter"], validate_default=True)
    """Which change is allowed?"""
    optimizer: Any = Field(default=_DEFAULTS["optimizer"], validate_default=True)
    """How is the change made?"""
    reference: Literal["auto", "off", "snapshot", "cache"] = "auto"
    """Who the reference is: the model with its adapter off, a frozen snapshot, or log-probs cached on disk before
    training. auto = cache."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; null = as many as ``epochs`` asks for."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data when ``steps`` is null."""
    batch_size: int = Field(default=16, ge=1)
    """Rows (pairs or labelled answers) in one optimizer step, over all processes."""
    max_length: int = Field(default=1024, ge=2)
    """Tokens of prompt + answer; longer prompts lose their oldest turns first."""
    max_tokens: int = Field(default=4096, ge=2)
    """Tokens in one forward pass. Sets memory and speed, never the result: a step is split into as many as it needs."""
    layout: Literal["auto", "tree", "packed", "padded"] = "auto"
    """How answers are laid out for the model. auto = the fastest that gives the plain model's numbers."""
    sampler: Literal["shuffle", "sequential", "by_prompt"] = "shuffle"
    """Order of rows: shuffled anew each epoch, as in the file, or shuffled with all rows of a prompt together."""
    schedule: str = "linear"
    """transformers' learning-rate schedule: linear, cosine, constant, constant_with_warmup..."""
    warmup: float = Field(default=0.1, ge=0)
    """Warm-up steps; below 1, a share of all steps."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Clip the gradient's L2 norm here; 0 = do not clip."""
    seed: int = 0
    """Seeds the adapter's start, the order of rows and all else that is random."""
    skip_bad_rows: bool = False
    """Leave out rows that cannot be used, and count them, instead of refusing to start."""
    trackers: tuple[str, ...] = ()
    """accelerate's trackers by name: tensorboard, wandb, mlflow..."""
    out: str = "runs/latest"
    """The run's folder."""

    @field_validator(*ROOMS, mode="before")
    @classmethod
    def _resolve(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        return rooms.resolve(ROOMS[str(info.field_name)], value)


MAY_CHANGE = {
    "out": "a folder may be moved",
    "trackers": "they watch",
    "checkpoints": "when a state is written does not change it",
    "evaluation": "looking changes nothing that is learnt; patience only ends the run sooner",
    "max_tokens": "it sets memory and speed, never the result, so a run that ran out of memory can go on",
    "model.device": "a run may go on elsewhere, equal up to rounding",
    "model.gradient_checkpointing": "it trades memory for time",
}
"""Keys that another recipe may set differently and still resume a run, each with the reason."""


# ---------------------------------------------------------------------------------------------- reading and writing


def load(
    source: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    notice: Callable[[str], None] = warnings.warn,
) -> Recipe:
    """A recipe from a YAML file, a run folder or a mapping, and ``key=value`` overrides.

    ``model`` and each source of data may be a bare string; ``data`` may be a list; evaluation data without a name is
    called as its file. An override replaces its key, a dotted one only that part (``model.dtype=bfloat16``,
    ``objective.beta=0.2``). Where a method stands, a preset's name may stand. Names of TRL that mean the same are read,
    and ``notice`` is called with one line for each, as for all else that the user should hear of.

    Raises:
        RecipeError: a file that is not a recipe, an unknown key (the nearest is offered), a value that does not fit.
        SpecError: an unknown method or option; the message names the room.
    """
    draft = Draft(_keys, notice)
    if isinstance(source, Mapping):
        draft.take_mapping(source, "recipe")
    else:
        path = _file(Path(source).expanduser())
        draft.take_mapping(_yaml.read(_text(path), str(path)), str(path))
    draft.take_overrides(overrides)
    draft.expand_presets()
    tree = draft.nested()
    for key, instead in (("model", "Write model: HUB_ID_OR_FOLDER."), ("data", "Write data: FILE_FOLDER_OR_HUB_ID.")):
        if key not in tree:
            raise RecipeError(f"{key} is missing.", where=_name(source), instead=instead)
    if isinstance(tree["data"], dict):
        tree["data"] = [tree["data"]]
    chosen = {key: draft.choice(key, _DEFAULTS[key]) for key in ROOMS}
    try:
        recipe = Recipe(**_at_home(tree), **chosen)
    except pydantic.ValidationError as error:
        raise _refusal(error, draft) from None
    _check_best(recipe.evaluation, draft)
    if overrides or len(tree) + len(ROOMS) < len(_keys(()) or ()):  # a dump was remarked on when it was made
        for remark in _remarks(recipe):
            notice(remark)
    return recipe


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every key written out, methods as text. ``load`` gives the same recipe back."""
    return _yaml.write(as_dict(recipe))


def schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors; aliases are not part of it."""
    from grainline import _schema

    return _schema.recipe_schema(Recipe)


def text(method: Any) -> str:
    """A method's value -> its text, as it stands in a recipe."""
    return rooms.text(method)


def fingerprint(recipe: Recipe) -> str:
    """Hexadecimal SHA-256 of all that determines what is learnt: everything but :data:`MAY_CHANGE`."""
    fixed = {key: value for key, value in _leaves(as_dict(recipe)).items() if not _may_change(key)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def differences(started: Recipe, wanted: Recipe) -> list[str]:
    """Dotted keys in which ``wanted`` is not the recipe that a run was ``started`` with, :data:`MAY_CHANGE` aside.

    What one of the two leaves open (``auto``, or null steps) was resolved by the run, and is no difference.
    """
    one, other = _leaves(as_dict(started)), _leaves(as_dict(wanted))
    keys = [key for key in {**one, **other} if not _may_change(key) and one.get(key) != other.get(key)]
    return [key for key in keys if not (key in _LEFT_OPEN and {one[key], other[key]} & {None, "auto"})]


_LEFT_OPEN = ("steps", "layout", "reference", "model.dtype")


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, (dict, list)) or not tree:
        return {prefix: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    parts = [_leaves(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in items]
    return {key: value for part in parts for key, value in part.items()}


def _may_change(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as YAML's own values, every key written out."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {
                key: rooms.text(part) if key in ROOMS and value is recipe else plain(part)
                for key, part in parts.items()
            }
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(recipe)


def _keys(place: Place) -> Collection[str] | None:
    """The keys that may stand at ``place`` of a recipe; see :data:`grainline._draft.Keys`."""
    if place == ("evaluation", "data"):
        return ANY
    section: Any = HeldOutChoice if len(place) == 3 and place[:2] == ("evaluation", "data") else _SECTIONS.get(place)
    return None if section is None else [field.name for field in dataclasses.fields(section)]


_SECTIONS: dict[Place, type] = {
    (): Recipe,
    ("model",): ModelChoice,
    ("data",): DataChoice,
    ("evaluation",): EvaluationChoice,
    ("checkpoints",): CheckpointChoice,
}


def _file(path: Path) -> Path:
    """The recipe's file: ``path``, or the recipe of the run in that folder."""
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if not path.is_file():
        beside = [other.name for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        what = "is a folder without a recipe.yaml." if path.is_dir() else "no such file."
        raise RecipeError(what, where=str(path), instead=nearest(path.name, beside))
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"not UTF-8 text (byte {error.start}).", where=str(path)) from None


def _name(source: Any) -> str:
    return "recipe" if isinstance(source, Mapping) else os.fspath(source)


def _at_home(tree: dict[str, Any]) -> dict[str, Any]:
    """``tree`` with ``~`` written out in every path."""

    def expand(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {key: expand(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [expand(item) for item in value]
        return (
            os.path.expanduser(value) if key in ("path", "out", "name", "adapter") and isinstance(value, str) else value
        )

    return {key: expand(value, key) for key, value in tree.items()}


def _refusal(error: pydantic.ValidationError, draft: Draft) -> RecipeError:
    """One sentence of the first thing pydantic refuses."""
    first = error.errors()[0]
    place = tuple(map(str, first["loc"]))
    key, reason, got = ".".join(place), first["msg"].rstrip("."), reprlib.repr(first["input"])
    if first["type"] == "missing":
        what = f"{key} is missing."
    elif reason.startswith("Input "):
        what = f"{key} {reason.removeprefix('Input ')}, got {got}."
    else:
        what = f"{key}: {reason}, got {got}."
    return RecipeError(what, where=draft.source(place))


def _check_best(evaluation: EvaluationChoice, draft: Draft) -> None:
    if evaluation.patience and not evaluation.best:
        raise RecipeError(
            "evaluation.patience waits for a new best, but evaluation.best names no metric.",
            where=draft.source(("evaluation", "patience")),
            instead="Write evaluation.best: eval_SET_METRIC.",
        )
    sets = tuple(f"eval_{name}_" for name in evaluation.data)
    if evaluation.best and not evaluation.best.removeprefix("-").startswith(sets):
        raise RecipeError(
            f"evaluation.best = {evaluation.best!r} is no metric of the evaluation data.",
            where=draft.source(("evaluation", "best")),
            instead=f"It begins with {' or '.join(sets)}." if sets else "Write evaluation.data first.",
        )


def _remarks(recipe: Recipe) -> list[str]:
    """What is not wrong, but should not pass in silence."""
    found = []
    trained = {_rows(source) for source in recipe.data}
    for name, source in recipe.evaluation.data.items():
        if _rows(source) in trained:
            found.append(f"evaluation set {name!r} is also trained on: it says nothing of new data.")
    if recipe.evaluation.every and not recipe.evaluation.data:
        found.append("evaluation.every is set, but evaluation.data names nothing to look at.")
    if recipe.steps is not None and recipe.epochs != 1.0:
        found.append(f"epochs={recipe.epochs:g} is not used, because steps={recipe.steps} is set.")
    return found


def _rows(source: DataChoice | HeldOutChoice) -> tuple[str, str]:
    """What makes two sources the same rows: a file has no splits."""
    is_file = source.path.endswith((".jsonl", ".json", ".parquet", ".arrow", ".gz"))
    return source.path, "" if is_file else source.split
