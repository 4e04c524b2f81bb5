"""A run, or a model alone, measured: what ``grainline evaluate`` does.

Everything measured is written to ``FOLDER/evaluation/NAME/`` (docs/evaluation.md lists the files), family by family, as
soon as it is known. A family whose model, data and options are those of what is written is not measured again; one
that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grainline import atomic, models, provenance, rooms
from grainline.bench import Bench, Measured
from grainline.data import collate
from grainline.errors import RunError, UserError
from grainline.evaluation import by_token, displacement, masks, preference, token_table
from grainline.evaluation.about import about
from grainline.evaluation.journal import Journal, clean, key_of
from grainline.evaluation.measures import Family, Measures
from grainline.evaluation.preferences import WINDOW
from grainline.launch import accelerator_for
from grainline.prepare import prepare_held_out
from grainline.progress import say, track
from grainline.recipe import HeldOutChoice
from grainline.types import Example

FORMAT = 1
"""Of facts.json."""


class Findings(NamedTuple):
    """What a family says."""

    figures: Mapping[str, float | None]
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = {}
    notes: Sequence[str] = ()


class Other(NamedTuple):
    """What is known of the run that this one is compared with."""

    measured: Measured
    key: Mapping[str, Any]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]  # of each held-out set


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
    other = None
    if against is not None:  # first, and gone when its rival is loaded
        other = Other(against, *_others(against, folder, sets, measures, quiet))
    bench, examples, facts = _ready(of, sets, quiet)
    found = {}
    for name, rows in examples.items():
        place = folder / "evaluation" / safe(name)
        found[name] = Assessment(bench, name, place, rows, facts[name], measures, other, quiet).run()
    bench.accelerator.wait_for_everyone()
    return found


def safe(name: str) -> str:
    """``name`` as a folder's."""
    return name.replace("/", "-").lstrip(".") or "data"


def _ready(
    of: Measured, sets: Mapping[str, HeldOutChoice], quiet: bool
) -> tuple[Bench, dict[str, list[Example]], dict[str, Any]]:
    accelerator = accelerator_for(of.recipe)
    quiet = quiet or not accelerator.is_main_process
    examples, facts = prepare_held_out(of.recipe, sets, models.load_tokenizer(of.recipe.model), quiet=quiet)
    return Bench(of, [row for rows in examples.values() for row in rows], accelerator), examples, facts


def _others(
    of: Measured, folder: Path, sets: Mapping[str, HeldOutChoice], measures: Measures, quiet: bool
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    bench, examples, facts = _ready(of, sets, quiet)
    found = {}
    for name, rows in examples.items():
        place = folder / "evaluation" / safe(name)
        made = Assessment(bench, name, place, rows, facts[name], measures, None, quiet, as_other=True)
        found[name] = made.rows()
    return bench.key, found


class Assessment:
    """One bench on one held-out set."""

    def __init__(
        self,
        bench: Bench,
        name: str,
        folder: Path,
        examples: Sequence[Example],
        data: Mapping[str, Any],
        measures: Measures,
        other: Other | None,
        quiet: bool,
        *,
        as_other: bool = False,
    ) -> None:
        self.bench, self.name, self.folder, self.examples = bench, name, folder, examples
        self.data, self.measures, self.other = data, measures, other
        self.writes = bench.accelerator.is_main_process
        self.quiet, self.as_other = quiet or not self.writes, as_other
        self._rows: list[dict[str, Any]] | None = None

    def run(self) -> dict[str, float]:
        """Measure every family that is wanted; all figures."""
        known = self._known()
        for family in self.measures.wanted:
            why = self._cannot(family)
            if why:
                say(f"{family}: left out, {why}", quiet=self.quiet)
            elif known.get(family, {}).get("key") != self._key(family):
                began = time.monotonic()
                found = _FAMILIES[family](self)
                known[family] = {
                    "key": self._key(family),
                    "seconds": round(time.monotonic() - began, 3),
                    "options": self._options(family),
                    "figures": found.figures,
                    "tables": found.tables,
                    "notes": list(found.notes),
                }
                self._write(known)
        self._write(known)
        return {k: v for k, v in self._metrics(known).items() if v is not None}

    def rows(self) -> list[dict[str, Any]]:
        """A line for each example, measured now or earlier."""
        if self._rows is None:
            file = self.folder / ("rows-against.jsonl" if self.as_other else "rows.jsonl")
            journal = Journal(file, self._decides(), writes=self.writes)
            missing = [example for example in self.examples if example.record.id not in journal]
            windows = [missing[i : i + WINDOW] for i in range(0, len(missing), WINDOW)]
            for window in track(windows, f"held-out rows of {self.name}", quiet=self.quiet):
                found = self.bench.rows(window, by_token.look).rows
                journal.add(_line(example, row) for example, row in zip(window, found, strict=True))
            self._rows = journal.ordered([example.record.id for example in self.examples])
        return self._rows

    def _decides(self, **more: Any) -> str:
        """The key of what is measured of these rows by this bench."""
        ids = hashlib.sha256()
        for example in self.examples:
            for answer in example.answers:
                ids.update(collate.content_key(example.prompt, answer.ids).encode())
                ids.update(repr((example.record.id, answer.weight, answer.segment, answer.score)).encode())
        objective = rooms.text(self.bench.of.recipe.objective)
        return key_of(format=FORMAT, of=self.bench.key, rows=ids.hexdigest(), objective=objective, **more)

    def _options(self, family: Family) -> dict[str, Any]:
        return {name: getattr(self.measures, name) for name in OPTIONS[family]}

    def _key(self, family: Family) -> str:
        other = None if self.other is None else self.other.key
        return self._decides(family=family, options=self._options(family), other=other)

    def _cannot(self, family: Family) -> str:
        """Why ``family`` does not apply; empty where it does."""
        if family in NEEDS_REFERENCE and self.bench.voices.reference is None:
            return "a model alone has nothing to be compared with"
        return ""

    def _known(self) -> dict[str, Any]:
        """What was measured of this folder earlier; nothing where the file is of another subject."""
        try:
            found = json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))
            return dict(found["families"]) if found["format"] == FORMAT else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _metrics(self, known: Mapping[str, Any]) -> dict[str, float | None]:
        return {name: value for family in known.values() for name, value in family["figures"].items()}

    def _write(self, known: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        metrics = self._metrics(known)
        facts = {
            "format": FORMAT,
            "name": self.name,
            "of": self.bench.of.told,
            "against": self.other.measured.told if self.other else None,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data": self.data,
            "provenance": {k: v for k, v in provenance.gathered().items() if k != "time"},
            "model": self.bench.key,
            "metrics": metrics,
            "about": {name: said for name in metrics if (said := about(name))},
            "families": known,
        }
        atomic.text(self.folder / "facts.json", json.dumps(clean(facts), indent=1, allow_nan=False))


def _line(example: Example, row: Mapping[str, Any]) -> dict[str, Any]:
    group = hashlib.sha256(array("q", example.prompt).tobytes()).hexdigest()[:12]
    numbers = {"numbers": dict(example.record.numbers)} if example.record.numbers else {}
    return {"id": example.record.id, "group": group} | numbers | {k: v for k, v in row.items() if k != "id"}


# ---------------------------------------------------------------------------------------------------------- families


def _preference(work: Assessment) -> Findings:
    rows, seed = work.rows(), work.measures.seed
    figures = preference.figures(rows, seed=seed)
    if work.other is not None:
        figures |= preference.against_run(rows, work.other.rows[work.name], seed=seed)
    if work.writes:
        few = [(row, e) for row, e in zip(rows, work.examples, strict=True) if "chosen" in row][: work.measures.pairs]
        beta = getattr(work.bench.of.recipe.objective, "beta", None) or 1.0
        lines = token_table.lines([r for r, _ in few], [e for _, e in few], work.bench.voices.tokenizer, beta=beta)
        text = "".join(json.dumps(clean(line), allow_nan=False) + "\n" for line in lines)
        atomic.text(work.folder / "tokens.jsonl", text)
    return Findings(figures, preference.tables(rows, seed=seed))


def _displacement(work: Assessment) -> Findings:
    rows = work.rows()
    tables = {"positions": displacement.positions(rows), "margin_shares": displacement.margin_shares(rows)}
    return Findings(displacement.figures(rows, seed=work.measures.seed), tables)


def _masks(work: Assessment) -> Findings:
    rows = work.rows()
    return Findings(masks.figures(rows), {"positions": masks.positions(rows)})


_FAMILIES: dict[Family, Callable[[Assessment], Findings]] = {
    "preference": _preference,
    "displacement": _displacement,
    "masks": _masks,
}

OPTIONS: dict[Family, tuple[str, ...]] = {
    "preference": ("seed", "pairs"),
    "displacement": ("seed",),
    "masks": (),
}
"""The options that a family's figures depend on."""

NEEDS_REFERENCE: frozenset[Family] = frozenset({"displacement", "geometry", "masks"})
