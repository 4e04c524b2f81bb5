"""A model card for the Hugging Face hub: what the adapter is, what was measured, how it was made.

Cards are public, so paths of this machine stay out. What stands at the head of an ``adapter/README.md`` already (a
licence, a language, the base model) is kept; the licence is left to whoever publishes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from grainline.report import evidence, facts, headline, markdown, read, words
from grainline.report.jsonl import Line
from grainline.report.read import RunFiles, dig

_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
INDEXED = {
    "rewards/accuracies": ("accuracy", "Accuracy of implied rewards"),
    "length/accuracy_controlled": ("accuracy", "Accuracy of implied rewards at equal length"),
    "rewards/margins": ("margin", "Margin of implied rewards, nats times beta"),
    "generation/win_rate": ("win_rate", "Win rate against the model that training started from"),
}
"""Held-out figures that the hub's tables show, each with its type there and its name."""

_NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?=[:@(\s+]|$)")


def card(folder: str | Path) -> str:
    """The README.md of a finished run's adapter.

    Raises:
        RunError: not a run, or a damaged file.
    """
    (files,) = read.runs([folder])
    return "\n\n".join([_front(files), *_body(files)]) + "\n"


# ------------------------------------------------------------------------------------------------------ front matter


def _front(files: RunFiles) -> str:
    import yaml

    kept = _kept(files.folder / "adapter" / "README.md")
    base = kept.pop("base_model", None) or _hub_id(dig(files.recipe, "model", "name") or files.recipe.get("model"))
    tags = kept.pop("tags", [])
    whole = _is_whole(files)
    head: dict[str, Any] = {"base_model": base} if base else {}
    head |= {"library_name": "transformers" if whole else "peft", "pipeline_tag": "text-generation"}
    head["tags"] = list(dict.fromkeys(["grainline", *_methods(files), *(tags if isinstance(tags, list) else [])]))
    public = [hub for path in _paths(files) if (hub := _hub_id(path))]
    head |= {"datasets": list(dict.fromkeys(public))} if public else {}
    head |= {key: value for key, value in kept.items() if key not in head}
    results = _model_index(files)
    head |= {"model-index": results} if results else {}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _kept(file: Path) -> dict[str, Any]:
    """The front matter of a card that is there already; nothing where there is none."""
    import yaml

    if not file.is_file():
        return {}
    match = re.match(r"---\n(.*?)\n---", file.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        found = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        return {}
    return {str(key): value for key, value in found.items()} if isinstance(found, Mapping) else {}


def _methods(files: RunFiles) -> list[str]:
    """The names in the choices: "dpo:beta=0.2 + 0.1*sft" holds dpo and sft."""
    texts = [str(files.recipe.get(room) or "") for room in ("objective", "adapter")]
    parts = [part.rpartition("*")[2].strip() for text in texts for part in re.split(r"\s*\+\s*", text)]
    names = [match[0] for part in parts if (match := _NAMES.match(part))]
    return [name for name in dict.fromkeys(names) if name != "none"]


def _is_whole(files: RunFiles) -> bool:
    """Whether what is published is a model rather than an adapter."""
    there = files.folder / "adapter"
    if (there / "adapter_config.json").is_file():
        return False
    return (there / "config.json").is_file() or str(files.recipe.get("adapter")) == "none"


def _paths(files: RunFiles) -> list[str]:
    data = files.recipe.get("data")
    parts = data if isinstance(data, Sequence) and not isinstance(data, str) else [data]
    return [str(dig(part, "path") or part) for part in parts if part]


def _hub_id(name: Any) -> str | None:
    """``name`` where it means a repository of the hub and not a file here."""
    is_id = isinstance(name, str) and _HUB.fullmatch(name) and not re.search(r"\.(jsonl?|parquet|csv|gz)$", name)
    return name if is_id and not Path(name).exists() else None


def _model_index(files: RunFiles) -> list[dict[str, Any]]:
    """Measured figures on public data sets, as the hub's tables read them."""
    held_out = dig(files.recipe, "evaluation", "data")
    results: list[dict[str, Any]] = []
    looks: list[tuple[Any, Line]] = [(dig(held_out, name), metrics) for name, metrics in facts.after(files).items()]
    looks += [(found.facts.get("data"), found.metrics) for found in files.evaluations]
    for choice, metrics in looks:
        hub = _hub_id(dig(choice, "path") or choice)
        values = [
            {"type": kind, "name": name, "value": metrics[metric]}
            for metric, (kind, name) in INDEXED.items()
            if metric in metrics
        ]
        data = {"type": hub, "name": hub} | ({"split": str(split)} if (split := dig(choice, "split")) else {})
        if hub and values and data not in [result["dataset"] for result in results]:
            task = {"type": "text-generation", "name": "Preference alignment"}
            results.append({"task": task, "dataset": data, "metrics": values})
    return [{"name": files.name, "results": results}] if results else []


# -------------------------------------------------------------------------------------------------------------- body


def _body(files: RunFiles) -> list[str]:
    said = headline.one(files)
    whole = _is_whole(files)
    base = _private(dig(files.recipe, "model", "name") or files.recipe.get("model"))
    made = {key: value for key, value in facts.choices(files).items() if key not in ("Model", "Data")}
    data = ", ".join(_private(path) for path in _paths(files))
    versions = dig(files.provenance, "versions")
    rows = [("Base model", base), ("Data", data), *made.items(), *facts.cost(files).items()]
    kind = "A model" if whole else "An adapter"
    parts = [
        f"# {words.inline(files.name)}",
        f"{kind} for {words.inline(base)}, aligned with preferences by Grainline.",
    ]
    parts += [words.inline(said.sentence)]
    measured = [*markdown.changes(files), *markdown.evaluations(files)]
    tables = [re.sub("^##", "###", part) for part in measured]
    parts += ["## Measured", *tables] if tables else []
    parts += ["## Use", words.fenced(_use(whole), "python")]
    parts += ["## How it was made", markdown.table(("", ""), rows)]
    if isinstance(versions, Mapping):
        parts.append(
            "Versions: " + words.inline(", ".join(f"{name} {version}" for name, version in versions.items())) + "."
        )
    parts += [
        "## Limits",
        "Accuracy says how often the chosen answer of a held-out pair gets the larger implied reward. It does not say "
        "that answers are true or safe: read some before relying on them.",
    ]
    limits = {kind: title for kind, title in evidence.TITLES.items() if kind != "for"}
    return parts + markdown.reasons(files, limits)


def _private(name: Any) -> str:
    """A name without the folders of this machine."""
    return str(name) if _hub_id(name) else PurePath(str(name)).name


def _use(whole: bool) -> str:
    kind, package = ("AutoModelForCausalLM", "transformers") if whole else ("AutoPeftModelForCausalLM", "peft")
    return f'from {package} import {kind}\n\nmodel = {kind}.from_pretrained("path/to/this/folder")'
