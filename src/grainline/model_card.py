"""README.md of an adapter or a model as a hub repository, before its run is known; a run's own is report/card.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grainline import models


def model_card(
    model: Any, *, methods: Sequence[str] = (), merged: bool = False, facts: Mapping[str, Any] | None = None
) -> str:
    """README.md of a model repository. The licence is left to whoever publishes."""
    import yaml

    wrapped = hasattr(model, "peft_config")
    adapter = wrapped and not merged
    name = str(getattr(model.get_base_model() if wrapped else model, "name_or_path", "") or "")
    base = models.hub_id(name)
    head: dict[str, Any] = {"base_model": base} if base else {}
    head |= {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["grainline", *dict.fromkeys(methods)],
    }
    lines = [f"# {'Adapter' if adapter else 'Model'} made with Grainline", ""]
    if name and name != base:
        lines += [
            f"The base was read from `{Path(name).name}`" + (f", a converted copy of {base}." if base else "."),
            "",
        ]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n".join(lines) + "\n" + told(facts or {})


def told(facts: Mapping[str, Any]) -> str:
    return "".join(f"{key.replace('_', ' ')}: {value}\n" for key, value in facts.items())
