"""A recipe as a notebook shows it: the choices, and what else was said; the defaults are folded away."""

from __future__ import annotations

from html import escape
from typing import Any

from grainline.recipe.files import as_dict, leaves
from grainline.recipe.preset import ROOMS
from grainline.recipe.value import DataChoice, ModelChoice, Recipe


def html(recipe: Recipe) -> str:
    """A small table, without script or style sheet."""
    sources = tuple(DataChoice(path=source.path) for source in recipe.data)
    plain = leaves(as_dict(Recipe(model=ModelChoice(name=recipe.model.name), data=sources)))
    rows = {key: value for key, value in leaves(as_dict(recipe)).items() if value is not None}
    chosen = {key: value for key, value in rows.items() if key in ROOMS or key in _ALWAYS or plain.get(key) != value}
    rest = {key: value for key, value in rows.items() if key not in chosen}
    return f"<div>{_table(chosen)}<details><summary>{len(rest)} defaults</summary>{_table(rest)}</details></div>"


_ALWAYS = ("model.name", "data.0.path", "out")


def _table(rows: dict[str, Any]) -> str:
    lines = (
        f'<tr><th style="text-align: left"><code>{escape(key)}</code></th>'
        f'<td style="text-align: left">{escape(str(value))}</td></tr>'
        for key, value in rows.items()
    )
    return f"<table>{''.join(lines)}</table>"
