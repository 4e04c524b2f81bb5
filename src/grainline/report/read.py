"""A run's folder -> what its files say, checked; nothing else is read, nothing is written.

A run that was stopped has no ``results.json``, one without evaluation no ``samples.jsonl``, one that has just begun no
``metrics.jsonl``: what is missing is empty. What is there must be whole, but for a last line that a crash cut short.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grainline.errors import RunError
from grainline.report import jsonl, measured
from grainline.report.jsonl import Line
from grainline.report.measured import Evaluation


class RunFiles(NamedTuple):
    """All that a report is made of."""

    name: str  # of the folder, as long as it must be to differ from others
    folder: Path
    recipe: Mapping[str, Any]
    recipe_text: str
    provenance: Mapping[str, Any]
    steps: Sequence[Line]  # metrics of training steps
    looks: Sequence[Line]  # metrics of evaluations, step 0 first
    results: Line | None  # what is true of the adapter; None while the run is not finished
    samples: Sequence[Mapping[str, Any]]
    warnings: Sequence[Mapping[str, Any]]
    weights: int | None  # bytes of the adapter's tensors
    evaluations: Sequence[Evaluation] = ()  # what grainline evaluate measured later


def runs(folders: Sequence[str | Path]) -> list[RunFiles]:
    """Each of ``folders``, read; one that is named twice is read once.

    Raises:
        RunError: not a run, or one of its files is damaged.
    """
    named = [Path(os.path.expanduser(folder)) for folder in folders]
    distinct = list({folder.resolve(): folder for folder in named}.items())
    names = _names([resolved for resolved, _ in distinct])
    return [run(given, name) for (_, given), name in zip(distinct, names, strict=True)]


def run(folder: Path, name: str = "") -> RunFiles:
    """The files of one run."""
    if not (folder / "recipe.yaml").is_file():
        raise RunError("no recipe.yaml here: not a run.", where=str(folder), instead="Give the folder of a run.")
    lines = metrics(folder)
    results = jsonl.one(folder / "results.json", _metrics) if (folder / "results.json").is_file() else None
    text = jsonl.text(folder / "recipe.yaml")
    return RunFiles(
        name=name or folder.resolve().name,
        folder=folder,
        recipe=_recipe(folder / "recipe.yaml", text),
        recipe_text=text,
        provenance=provenance(folder),
        steps=[line for line in lines if "loss" in line],
        looks=[line for line in lines if any(key.startswith(("eval_", "geometry_")) for key in line)],
        results=results,
        samples=jsonl.many(folder / "samples.jsonl", _sample),
        warnings=warnings(folder),
        weights=sum(file.stat().st_size for file in (folder / "adapter").glob("*.safetensors")) or None,
        evaluations=measured.evaluations(folder),
    )


def metrics(folder: Path) -> Sequence[Line]:
    """The lines of a run's metrics.jsonl; none while there is no such file."""
    return jsonl.many(folder / "metrics.jsonl", _metrics)


def warnings(folder: Path) -> Sequence[Line]:
    """The lines of a run's warnings.jsonl; none while there is no such file."""
    return jsonl.many(folder / "warnings.jsonl", _warning)


def provenance(folder: Path) -> Mapping[str, Any]:
    """A run's provenance.json; empty while there is none."""
    file = folder / "provenance.json"
    return jsonl.one(file) if file.is_file() else {}


def dig(value: Any, *keys: str) -> Any:
    """What stands under ``keys``, one inside the other; None where there is no such thing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


# ---------------------------------------------------------------------------------------------------------- files


def _recipe(file: Path, text: str) -> Mapping[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise jsonl.damaged(file, f"unreadable: {str(error).splitlines()[0]}") from error
    if not isinstance(found, Mapping):
        raise jsonl.damaged(file, "not a mapping of keys")
    return found


def _metrics(line: Mapping[str, Any]) -> str:
    if "step" not in line:
        return "there is no step"
    odd = [key for key, value in line.items() if isinstance(value, bool) or not isinstance(value, (int, float))]
    odd += [key for key, value in line.items() if isinstance(value, int) and abs(value) > 1 << 62]
    if odd:
        return f"{odd[0]} is not a number"
    whole = 0 <= line["step"] < 1 << 53 and line["step"] == int(line["step"])
    return "" if whole else "step is not a whole number"


def _sample(line: Mapping[str, Any]) -> str:
    odd = [key for key in ("policy", "reference") if not isinstance(line.get(key, ""), str)]
    return f"{odd[0]} is not text" if odd else "there is no policy" if "policy" not in line else ""


def _warning(line: Mapping[str, Any]) -> str:
    odd = [key for key in ("kind", "seen", "instead") if not isinstance({"kind": "", **line}.get(key), str)]
    if odd:
        return f"{odd[0]} is not text"
    return "" if isinstance(line.get("amount", 0.0), (int, float)) else "amount is not a number"


def _names(folders: Sequence[Path]) -> list[str]:
    """The end of each path that no other ends with."""
    longest = max((len(folder.parts) for folder in folders), default=1)
    for count in range(1, longest + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
