"""Whose folder is it? A run's folder belongs to one recipe, one model and one set of rows from its first minute."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grainline import recipe as recipes
from grainline.errors import RunError, UserError
from grainline.recipe import Recipe


def fresh(folder: Path, recipe: Recipe) -> Recipe:
    """The folder is nobody's."""
    if (folder / "recipe.yaml").is_file():
        raise RunError(
            "this folder holds a run already.", where=str(folder), instead="Resume it, or choose another out."
        )
    return recipe


def continued(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe the run was started with, as it was resolved then, and of ``recipe`` only what may change."""
    existing = folder / "recipe.yaml"
    if not existing.is_file():
        raise RunError("nothing to resume: no recipe.yaml.", where=str(folder), instead="Start it without resume.")
    started = recipes.load(existing)
    changed = recipes.differences(started, recipe)
    if changed:
        raise RunError(
            f"the run was started with another recipe ({', '.join(changed)} differ).",
            where=str(folder),
            instead="Resume with the run's own recipe.yaml, or choose another out.",
        )
    return recipes.resumed(started, recipe)


def take(recipe: Path, content: str) -> None:
    """Make the folder of ``recipe`` this run's, unless another run was faster; from here on it can be resumed."""
    recipe.parent.mkdir(parents=True, exist_ok=True)
    try:
        with recipe.open("x", encoding="utf-8") as stream:
            stream.write(content)
    except FileExistsError as error:
        where = str(recipe.parent)
        raise RunError("another run has just begun here.", where=where, instead="Choose another out.") from error


@contextlib.contextmanager
def held(recipe: Path, content: str) -> Iterator[None]:
    """Take the folder of ``recipe`` as :func:`take` does, and give it back if the run is refused inside.

    Some mistakes show only once the reference was read or the adapter is on. Until then no other run may come between;
    after them the corrected recipe may have the folder.
    """
    take(recipe, content)
    try:
        yield
    except UserError:
        recipe.unlink(missing_ok=True)
        shutil.rmtree(recipe.parent / "initial", ignore_errors=True)
        with contextlib.suppress(OSError):
            recipe.parent.rmdir()  # rows that were in memory may be kept there
        raise


def check_same(folder: Path, facts: Mapping[str, Any]) -> None:
    """A run goes on with the data and the model it began with."""
    file = folder / "provenance.json"
    if not file.is_file():
        return  # it never came to the first step
    try:
        before = _known(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        said = f"unreadable ({type(error).__name__}: {error})."
        raise RunError(said, where=str(file), instead="Restore it, or start a new run.") from error
    now = _known(facts)
    for what, old in before.items():
        if old != now[what]:
            raise RunError(
                f"the {what} changed since the run was started.",
                where=str(folder),
                instead="Put it back, or start a new run.",
            )


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of what provenance.json says, that on which a run's numbers stand."""
    return {
        "model": facts["model"]["sha256"],
        "adapter that training goes on from": facts["model"].get("adapter_sha256"),
        "training data": [part["digest"] for part in facts["data"]["train"]],
        "tokens of the training data": facts["data"]["tokens"],
    }
