"""An evaluation as the page shows it: family by family its figures in words, its charts, its tables and its notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from grainline.report import facts, words
from grainline.report.facts import Aspect
from grainline.report.jsonl import Line
from grainline.report.measured import Evaluation, Family

TITLES = {
    "preference": "Does it prefer what people preferred?",
    "displacement": "Where the margin comes from",
    "generation": "What it says",
    "geometry": "What became of the weights",
    "forgetting": "What was forgotten",
    "control": "Does it keep to what was asked for?",
    "documents": "Does it find the relevant document?",
    "masks": "What its masks let through",
}
"""Families in the order of the page; others follow."""
DRAWN = {
    ("preference", "calibration"), ("preference", "aspects"), ("preference", "lengths"), ("displacement", "positions"),
    ("displacement", "margin_shares"), ("geometry", "layers"), ("control", "levels"), ("documents", "places"),
    ("masks", "positions"),
}  # fmt: skip
"""Tables that are drawn; the page folds them away."""
MOST = 200
"""Rows of a table that are shown."""


class Table(NamedTuple):
    title: str
    columns: list[str]
    rows: list[list[str]]
    more: int  # rows that are not shown
    drawn: bool


def families(found: Evaluation) -> list[Family]:
    """Those that say anything, in the order of :data:`TITLES`."""
    order, saying = (
        list(TITLES),
        [one for one in found.families if one.figures or one.notes or any(one.tables.values())],
    )
    return sorted(saying, key=lambda one: order.index(one.name) if one.name in TITLES else len(order))


def title(family: Family) -> str:
    return TITLES.get(family.name, family.name.capitalize())


def figures(found: Evaluation, family: Family) -> list[tuple[str, str, str]]:
    """Each figure: what it is called, its value with its interval and p-value, what it is. Aspects stand in a table."""
    return [(name, _figure(name, family), found.about.get(name, "")) for name in facts.ordered(family.figures)]


def _figure(name: str, family: Family) -> str:
    if name.endswith(("rows", "prompts", "matrices")):
        return words.whole(family.figures[name])
    p = family.figures.get(f"{name}_p")
    return words.interval(name, family.figures) + (f", p = {words.number(p)}" if p is not None else "")


def tables(family: Family) -> list[Table]:
    """The tables of a family; bounds stand in brackets behind what they bound."""
    made = [_table(family.name, name, rows) for name, rows in family.tables.items() if rows]
    return sorted(made, key=lambda one: one.drawn)


def aspects(found: Evaluation) -> list[Aspect]:
    """Margins by aspect, of the pairs whose answers differ in it."""
    keys = ("margin", "margin_low", "margin_high")
    rows = found.table("preference", "aspects")
    numbers = [{key: row[key] for key in keys if isinstance(row.get(key), (int, float))} for row in rows]
    return [Aspect(str(row.get("aspect")), {}, number) for row, number in zip(rows, numbers, strict=True) if number]


def subtitle(found: Evaluation) -> str:
    """On which rows, when, against whom."""
    data, time = found.facts.get("data"), found.facts.get("time")
    rows = data.get("rows") if isinstance(data, dict) else None
    parts = [
        f"{words.number(rows)} rows" if rows is not None else "",
        f"against {found.against}" if found.against else "",
    ]
    parts.append(f"measured {str(time).replace('T', ' ').removesuffix('Z')} UTC" if time else "")
    return ", ".join(filter(None, parts))


def _table(family: str, name: str, rows: Sequence[Line]) -> Table:
    keys = facts.standing({str(key): None for row in rows for key in row})
    cells = [[_cell(row, key) for key in keys] for row in rows[:MOST]]
    return Table(
        name.replace("_", " "),
        [key.replace("_", " ") for key in keys],
        cells,
        max(0, len(rows) - MOST),
        (family, name) in DRAWN,
    )


def _cell(row: Line, key: str) -> str:
    value: Any = row.get(key)
    return (
        words.interval(key, row)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else words.number(value)
    )
