"""A run, or a model alone, measured: what ``grainline evaluate`` does.

Everything measured is written to ``FOLDER/evaluation/NAME/`` (docs/evaluation.md lists the files), family by family, as
soon as it is known. A family whose model, data and options are those of what is written is not measured again; one
that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grainline import atomic, models, provenance
from grainline.assessment import families
from grainline.assessment.bench import Bench, Measured
from grainline.assessment.work import FORMAT, Other, Work
from grainline.evaluation.about import about
from grainline.evaluation.journal import clean
from grainline.evaluation.measures import Measures, made
from grainline.launch import accelerator_for
from grainline.prepare import prepare_held_out
from grainline.progress import say
from grainline.recipe import DataChoice, HeldOutChoice, ModelChoice, Recipe
from grainline.types import Example


def assess(
    of: Measured,
    folder: Path,
    sets: Mapping[str, HeldOutChoice],
    measures: Measures,
    *,
    against: Measured | None = None,
    quiet: bool = True,
) -> dict[str, dict[str, float]]:
    """Measure ``of`` on the named held-out ``sets``; name -> all figures.

    Raises:
        UserError: the model, the data or an option cannot be used.
    """
    families.check(measures)
    others: dict[str, Other] = {}
    if against is not None:  # first, and gone when its rival is loaded
        works = _works(against, folder, sets, measures, quiet, as_other=True)
        others = {name: families.other(work) for name, work in works.items()}
        del works
    works = _works(of, folder, sets, measures, quiet)
    found = {name: run(work._replace(other=others.get(name))) for name, work in works.items()}
    for work in works.values():
        work.bench.accelerator.wait_for_everyone()
    return found


def evaluate_model(
    model: str | Mapping[str, Any],
    data: str | Mapping[str, Any],
    *,
    out: str | Path = "",
    progress: bool = True,
    **measures: Any,
) -> dict[str, dict[str, float]]:
    """A model alone measured on named held-out sets, by all that needs no reference; written to ``OUT/evaluation/``.

    Args:
        model: hub id, folder or alias, or a mapping of :class:`~grainline.recipe.ModelChoice` fields.
        data: as in :meth:`grainline.runs.Run.evaluate`.
        out: empty = ``evaluations/MODEL``.
        measures: fields of :class:`~grainline.evaluation.measures.Measures`.
    """
    sets = named(data)
    choice = ModelChoice(name=model) if isinstance(model, str) else ModelChoice(**model)
    sources = tuple(DataChoice(path=one.path, split=one.split, format=one.format) for one in sets.values())
    recipe = Recipe(model=choice, data=sources, objective="sft")  # likelihood alone: it needs nobody to compare with
    name = Path(choice.name).name
    folder = Path(out) if out else Path("evaluations") / safe(name)
    return assess(Measured(recipe, None, name), folder, sets, made(**measures), quiet=not progress)


def named(data: str | Mapping[str, Any]) -> dict[str, HeldOutChoice]:
    """Held-out sets by name; one without a name is called as its file."""
    several = {Path(data).name.partition(".")[0]: data} if isinstance(data, str) else data
    return {name: HeldOutChoice(path=one) if isinstance(one, str) else one for name, one in several.items()}


def run(work: Work) -> dict[str, float]:
    """Measure every family that is wanted; all figures."""
    known = _known(work)
    for family in work.measures.wanted:
        why = families.cannot(work, family)
        if why:
            say(f"{family}: left out, {why}", quiet=work.quiet or family not in work.measures.families)
            continue
        key = families.key(work, family)
        if known.get(family, {}).get("key") != key:
            began = time.monotonic()
            found = families.FAMILIES[family](work)
            known[family] = {
                "key": key,
                "against": work.other.told if work.other and family in families.COMPARED else None,
                "seconds": round(time.monotonic() - began, 3),
                "options": families.options(work, family),
                "figures": clean(found.figures),
                "tables": found.tables,
                "notes": list(found.notes),
            }
            _write(work, known)
    if not known:  # what may be there is another subject's
        _write(work, known)
    return {name: value for name, value in _metrics(known).items() if value is not None}


def safe(name: str) -> str:
    """``name`` as a folder's."""
    return name.replace("/", "-").lstrip(".") or "data"


def _works(
    of: Measured,
    folder: Path,
    sets: Mapping[str, HeldOutChoice],
    measures: Measures,
    quiet: bool,
    *,
    as_other: bool = False,
) -> dict[str, Work]:
    """What is to be done for each set, on one bench."""
    accelerator = accelerator_for(of.recipe)
    quiet = quiet or not accelerator.is_main_process
    examples, facts = prepare_held_out(of.recipe, sets, models.load_tokenizer(of.recipe.model), quiet=quiet)
    everything: list[Example] = [row for rows in examples.values() for row in rows]
    bench = Bench(of, everything, accelerator)
    return {
        name: Work(bench, name, folder / "evaluation" / safe(name), rows, facts[name], measures, quiet, as_other)
        for name, rows in examples.items()
    }


def _known(work: Work) -> dict[str, Any]:
    """The families that were measured earlier of the same weights and rows."""
    try:
        found = json.loads((work.folder / "facts.json").read_text(encoding="utf-8"))
        return dict(found["families"]) if found["subject"] == work.decides() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _metrics(known: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: value for family in known.values() for name, value in family["figures"].items()}


def _write(work: Work, known: Mapping[str, Any]) -> None:
    if not work.writes:
        return
    metrics = _metrics(known)
    rivals = [family["against"] for family in known.values() if family["against"]]
    facts = {
        "format": FORMAT,
        "subject": work.decides(),
        "name": work.name,
        "of": work.bench.of.told,
        "against": rivals[-1] if rivals else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": work.data,
        "provenance": {k: v for k, v in provenance.gathered().items() if k != "time"},
        "model": work.bench.key,
        "metrics": metrics,
        "about": {name: said for name in metrics if (said := about(name))},
        "families": known,
    }
    atomic.text(work.folder / "facts.json", json.dumps(clean(facts), indent=1, allow_nan=False))
