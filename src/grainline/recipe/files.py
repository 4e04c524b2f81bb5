"""Reading and writing recipes: files, run folders, mappings, overrides; and what makes two of them the same run.

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
from typing import Any

import pydantic

from grainline import rooms
from grainline.errors import RecipeError, nearest
from grainline.recipe import yamls
from grainline.recipe.draft import ANY, Draft, Place
from grainline.recipe.preset import ROOMS
from grainline.recipe.value import (
    DEFAULTS,
    MAY_CHANGE,
    CheckpointChoice,
    DataChoice,
    EvaluationChoice,
    HeldOutChoice,
    ModelChoice,
    Recipe,
    SynchroniseChoice,
)


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
        path = _file(Path(os.path.expanduser(source)))
        draft.take_mapping(yamls.read(_text(path), str(path)), str(path))
    draft.take_overrides(overrides)
    draft.expand_presets()
    tree = draft.nested()
    for key, instead in (("model", "Write model: HUB_ID_OR_FOLDER."), ("data", "Write data: FILE_FOLDER_OR_HUB_ID.")):
        if key not in tree:
            raise RecipeError(f"{key} is missing.", where=_name(source), instead=instead)
    if isinstance(tree["data"], dict):
        tree["data"] = [tree["data"]]
    chosen = {key: draft.choice(key, DEFAULTS[key]) for key in ROOMS} | {"curate": draft.steps("curate")}
    try:
        recipe = Recipe(**(_at_home(tree) | chosen))
    except pydantic.ValidationError as error:
        raise _refusal(error, draft) from None
    _check_best(recipe.evaluation, draft)
    if overrides or len(tree) + len(ROOMS) < len(_keys(()) or ()):  # a dump was remarked on when it was made
        for remark in _remarks(recipe):
            notice(remark)
    return recipe


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every key written out, methods as text. ``load`` gives the same recipe back."""
    return yamls.write(as_dict(recipe))


def schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors; aliases are not part of it."""
    from grainline.recipe.json_schema import recipe_schema

    return recipe_schema(Recipe)


def fingerprint(recipe: Recipe) -> str:
    """Hexadecimal SHA-256 of all that determines what is learnt: everything but :data:`MAY_CHANGE`."""
    fixed = {key: value for key, value in leaves(as_dict(recipe)).items() if not _may_change(key)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def differences(started: Recipe, wanted: Recipe) -> list[str]:
    """Dotted keys in which ``wanted`` is not the recipe that a run was ``started`` with, :data:`MAY_CHANGE` aside.

    What one of the two leaves open (``auto``, or null steps) was resolved by the run, and is no difference.
    """
    one, other = leaves(as_dict(started)), leaves(as_dict(wanted))
    keys = [key for key in {**one, **other} if not _may_change(key) and one.get(key) != other.get(key)]
    return [key for key in keys if not (key in _LEFT_OPEN and {one[key], other[key]} & {None, "auto"})]


def resumed(started: Recipe, wanted: Recipe) -> Recipe:
    """The recipe a run was ``started`` with, and of ``wanted`` only what :data:`MAY_CHANGE`.

    A budget that the run has settled stays, unless ``wanted`` states another. A run that was cut off before it settled
    its rows and steps has learnt nothing, and takes those of ``wanted``.
    """
    whole = {key: getattr(wanted, key) for key in MAY_CHANGE if "." not in key}
    whole |= {key: getattr(wanted, key) for key in ("batch_size", "steps") if getattr(started, key) in (None, "auto")}
    whole["max_tokens"] = started.max_tokens if wanted.max_tokens == "auto" else wanted.max_tokens
    model = {key.removeprefix("model."): key for key in MAY_CHANGE if key.startswith("model.")}
    parts = {name: getattr(wanted.model, name) for name in model}
    return dataclasses.replace(started, **whole, model=dataclasses.replace(started.model, **parts))


_LEFT_OPEN = ("steps", "batch_size", "layout", "reference", "model.dtype")


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists -> dotted keys with plain values."""
    if not isinstance(tree, (dict, list)) or not tree:
        return {prefix: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    parts = [leaves(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in items]
    return {key: value for part in parts for key, value in part.items()}


def _may_change(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as YAML's own values, every key written out."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            written: dict[str, Any] = {
                key: rooms.text(part) for key, part in parts.items() if key in ROOMS and value is recipe
            }
            written |= {"curate": list(map(rooms.text, recipe.curate))} if value is recipe else {}
            return {key: written[key] if key in written else plain(part) for key, part in parts.items()}
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
    ("synchronise",): SynchroniseChoice,
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
    if recipe.evaluation.every and not (recipe.evaluation.data or recipe.evaluation.geometry):
        found.append("evaluation.every is set, but evaluation.data names nothing to look at.")
    if recipe.steps is not None and recipe.epochs != 1.0:
        found.append(f"epochs={recipe.epochs:g} is not used, because steps={recipe.steps} is set.")
    if recipe.memory != "auto" and recipe.max_tokens != "auto":
        found.append(f"memory={recipe.memory} is not used, because max_tokens={recipe.max_tokens} is a number.")
    return found


def _rows(source: DataChoice | HeldOutChoice) -> tuple[str, str]:
    """What makes two sources the same rows: a file has no splits."""
    is_file = source.path.endswith((".jsonl", ".json", ".parquet", ".arrow", ".gz"))
    return source.path, "" if is_file else source.split
