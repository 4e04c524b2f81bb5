"""The families by name, what each depends on, and which do not apply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from grainline import provenance, rooms
from grainline.assessment.answers import answers_of, on_generation, questions_of
from grainline.assessment.levels import on_control
from grainline.assessment.rows import on_displacement, on_documents, on_masks, on_preference
from grainline.assessment.weights import on_forgetting, on_geometry
from grainline.assessment.work import Findings, Other, Work
from grainline.errors import RunError
from grainline.evaluation import harness
from grainline.evaluation.measures import Family, Measures

FAMILIES: dict[Family, Callable[[Work], Findings]] = {
    "preference": on_preference,
    "displacement": on_displacement,
    "generation": on_generation,
    "geometry": on_geometry,
    "forgetting": on_forgetting,
    "control": on_control,
    "documents": on_documents,
    "masks": on_masks,
}

_SAID = ("generate", "prompts", "max_new_tokens", "temperature", "draws", "seed", "judge")
_TOLD = ("condition", "condition_style", "condition_place", "condition_scale")

OPTIONS: dict[Family, tuple[str, ...]] = {
    "preference": ("seed", "pairs"),
    "displacement": ("seed",),
    "generation": (*_SAID, *_TOLD, "embedding"),
    "geometry": (),
    "forgetting": ("seed", "neutral", "tasks", "task_rows"),
    "control": (*_SAID, *_TOLD, "levels"),
    "documents": ("seed", "place"),
    "masks": (),
}
FILES = ("prompts", "neutral", "embedding")
"""Options that may be a file or a folder, whose bytes decide."""
COMPARED: frozenset[Family] = frozenset({"preference", "generation"})
"""Families that say something of another run too, where there is one."""


def check(measures: Measures) -> None:
    """Options that do not go together are named before anything is loaded.

    Raises:
        RunError: they do not.
    """
    if measures.draws > 1 and not measures.temperature:
        raise RunError(
            "several draws at temperature 0 are one answer several times.", where="draws", instead="Set a temperature."
        )
    if measures.levels and not measures.judge:
        raise RunError("nobody says which level the answers have.", where="levels", instead="Name a judge.")
    if "control" in measures.families and not measures.levels:
        raise RunError("which levels?", where="control", instead="Set levels={ASPECT: [1, 5, 10]}.")
    if "documents" in measures.families and not measures.place:
        raise RunError("which column holds the place?", where="documents", instead="Set place=COLUMN.")
    if measures.judge:
        rooms.resolve("rewards", measures.judge)


def cannot(work: Work, family: Family) -> str:
    """Why ``family`` does not apply here; empty where it does."""
    if family in ("displacement", "geometry", "masks") and work.bench.voices.reference is None:
        return "a model alone was not changed"
    if family == "masks" and work.bench.engine.scorer.heads is None:
        return "the run keeps no learned masks of the adapter's step"
    return ""


def options(work: Work, family: Family) -> dict[str, Any]:
    """The options that a family's figures depend on."""
    return {name: getattr(work.measures, name) for name in OPTIONS[family]}


def key(work: Work, family: Family) -> str:
    """What decides a family's figures."""
    own = options(work, family)
    read = {name: provenance.digest(Path(own[name]).expanduser()) if own[name] else "" for name in FILES if name in own}
    read |= provenance.digests(harness.files(own.get("tasks", ())))
    read |= provenance.read_by(rooms.resolve("rewards", own["judge"]) if own.get("judge") else ())
    rival = work.other.key if work.other is not None and family in COMPARED else None
    return work.decides(family=family, options=own, files=read, other=rival)


def other(work: Work) -> Other:
    """Everything that a rival is compared with."""
    said = (
        answers_of(work, work.bench.voices.policy, questions_of(work).questions)
        if "generation" in work.measures.wanted
        else {}
    )
    return Other(work.bench.of.told, work.bench.key, work.rows(), said)
