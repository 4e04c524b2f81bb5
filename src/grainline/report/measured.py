"""What ``grainline evaluate`` wrote into a run's folder (docs/evaluation.md, "Files"), checked; nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grainline.report import jsonl
from grainline.report.jsonl import Line

FORMAT = 1
"""The version of facts.json that is read here."""
FAR = 1e300
"""No measured number is larger; whole numbers beyond it cannot be drawn."""
QUANTITIES = ("reward", "kl", "policy", "reference", "weight", "mask")
"""Numbers that a token of tokens.jsonl may have."""


class Family(NamedTuple):
    """Figures that were measured together."""

    name: str  # "preference", "forgetting", ...
    figures: Mapping[str, float]
    tables: Mapping[str, Sequence[Line]]
    notes: Sequence[str]  # sentences that must stand beside the figures


class Evaluation(NamedTuple):
    """A run measured on one data set."""

    name: str
    folder: Path
    facts: Line
    metrics: Mapping[str, float]  # all figures of all families; what could not be measured is left out
    about: Mapping[str, str]  # each figure in words
    families: Sequence[Family]
    rows: Sequence[Line]
    tokens: Sequence[Line]
    samples: Sequence[Line]

    def table(self, family: str, name: str) -> Sequence[Line]:
        """A table's rows; none where there is no such table."""
        return next((one.tables.get(name, ()) for one in self.families if one.name == family), ())

    @property
    def of_rows(self) -> str:
        """Which rows it is of: their digest; where that is not known its own folder, which is that of no other."""
        data = self.facts.get("data")
        return str((data.get("digest") if isinstance(data, Mapping) else None) or self.folder)

    @property
    def against(self) -> str:
        """The run that this one was compared with; empty for none. Answers may have been compared with another later,
        so who stands beside the rows goes first."""
        rows = self.facts["families"].get("preference", {})
        other = rows.get("against") or self.facts.get("against")
        return str(other.get("name", "")) if isinstance(other, Mapping) else ""


def evaluations(folder: Path) -> list[Evaluation]:
    """All evaluations of a run, in the order of their names.

    Raises:
        RunError: a file is damaged, or of a later format.
    """
    return [_evaluation(file.parent) for file in sorted((folder / "evaluation").glob("*/facts.json"))]


def _evaluation(folder: Path) -> Evaluation:
    facts = jsonl.one(folder / "facts.json", _facts)
    families = [
        Family(str(name), _numbers(family.get("figures", {})), family.get("tables", {}), family.get("notes", ()))
        for name, family in facts["families"].items()
    ]
    about = facts.get("about")
    return Evaluation(
        name=str(facts.get("name") or folder.name),
        folder=folder,
        facts=facts,
        metrics=_numbers(facts["metrics"]),
        about={str(key): str(text) for key, text in about.items()} if isinstance(about, Mapping) else {},
        families=families,
        rows=jsonl.many(folder / "rows.jsonl", _row),
        tokens=jsonl.many(folder / "tokens.jsonl", _pair),
        samples=jsonl.many(folder / "samples.jsonl", _sample),
    )


# ------------------------------------------------------------------------------------------------------------ checks


def _facts(found: Line) -> str:
    if found.get("format") != FORMAT:
        return f"format {found.get('format')!r}, and {FORMAT} is read here"
    metrics, families = found.get("metrics"), found.get("families")
    if not isinstance(metrics, Mapping) or not isinstance(families, Mapping):
        return "there are no metrics or no families"
    wrong = ((name, _family(one)) for name, one in families.items())
    return _not_numbers(metrics) or next((f"{name}: {what}" for name, what in wrong if what), "")


def _family(found: Any) -> str:
    if not isinstance(found, Mapping):
        return "not an object"
    figures, tables, notes = found.get("figures", {}), found.get("tables", {}), found.get("notes", [])
    if not isinstance(figures, Mapping) or not isinstance(tables, Mapping):
        return "figures or tables are no object"
    if not all(isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows) for rows in tables.values()):
        return "a table is not a list of rows"
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        return "notes are not sentences"
    return _not_numbers(figures)


def _row(line: Line) -> str:
    answers = [value for value in line.values() if isinstance(value, Mapping)]
    figures = {key: value for key, value in line.items() if not isinstance(value, (str, bool, Mapping))}
    wrong = (_answer(answer, ("policy", "reference", "kl"), answer.get("tokens")) for answer in answers)
    return _not_numbers(figures) or next(filter(None, wrong), "")


def _pair(line: Line) -> str:
    answers = line.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, Mapping) for answer in answers):
        return "there are no answers"
    for answer in answers:
        tokens, segments = answer.get("tokens"), answer.get("segments", [])
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            return "tokens are not texts"
        if not isinstance(segments, list) or not all(isinstance(segment, Mapping) for segment in segments):
            return "segments are not objects"
        if wrong := _answer(answer, (*QUANTITIES, "segment"), len(tokens)):
            return wrong
    return ""


def _answer(answer: Line, keys: Sequence[str], count: Any) -> str:
    """What is wrong with the numbers of an answer, which stand token by token."""
    for key in keys:
        values = answer.get(key)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) != count:
            return f"{key} has not one number a token"
        if _not_numbers(dict(enumerate(values))):
            return f"{key} holds what is not a number"
    return ""


def _sample(line: Line) -> str:
    voices = [key for key in ("policy", "reference", "against") if key in line]
    odd = [key for key in voices if not isinstance(line[key], str)]
    return f"{odd[0]} is not text" if odd else "" if "policy" in voices else "there is no policy"


def _not_numbers(found: Mapping[Any, Any]) -> str:
    """Names the first key under which something else stands than a number, or null for one that is not known."""
    for key, value in found.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > FAR):
            return f"{key} is not a number"
    return ""


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): value for key, value in found.items() if value is not None and math.isfinite(value)}
