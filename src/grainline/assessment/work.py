"""What is to be done: one bench on one held-out set, and what a family answers with."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grainline import atomic, rooms
from grainline.assessment.bench import Bench
from grainline.data import collate
from grainline.evaluation import by_token
from grainline.evaluation.journal import Journal, clean, key_of
from grainline.evaluation.measures import Measures
from grainline.evaluation.preferences import WINDOW
from grainline.progress import track
from grainline.types import Example

FORMAT = 1
"""Of all files; lines of another format are measured again."""
Line = Mapping[str, Any]


class Findings(NamedTuple):
    """What a family says."""

    figures: Mapping[str, float | None]
    tables: Mapping[str, Sequence[Line]] = {}
    notes: Sequence[str] = ()


class Other(NamedTuple):
    """What is known of the run that another is compared with."""

    told: Mapping[str, str]
    key: Mapping[str, Any]
    rows: Sequence[Line]
    answers: Mapping[str, Line]  # id -> answer


class Work(NamedTuple):
    """One bench on one held-out set."""

    bench: Bench
    name: str  # of the set
    folder: Path
    examples: Sequence[Example]
    data: Mapping[str, Any]  # digest and counts
    measures: Measures
    quiet: bool = True
    as_other: bool = False
    other: Other | None = None

    @property
    def writes(self) -> bool:
        return bool(self.bench.accelerator.is_main_process)

    def rows(self) -> list[dict[str, Any]]:
        """A line for each example, measured now or earlier."""
        file = self.folder / ("rows-against.jsonl" if self.as_other else "rows.jsonl")
        journal = Journal(file, self.decides(), writes=self.writes)
        missing = [example for example in self.examples if example.record.id not in journal]
        windows = [missing[i : i + WINDOW] for i in range(0, len(missing), WINDOW)]
        for window in track(windows, f"held-out rows of {self.name}", quiet=self.quiet):
            found = self.bench.rows(window, by_token.look).rows
            journal.add(_line(example, row) for example, row in zip(window, found, strict=True))
        return journal.ordered([example.record.id for example in self.examples])

    def decides(self, **more: Any) -> str:
        """The key of what this bench says of these rows."""
        ids = hashlib.sha256()
        for example in self.examples:
            for answer in example.answers:
                ids.update(collate.content_key(example.prompt, answer.ids).encode())
                ids.update(repr((example.record.id, answer.weight, answer.segment, answer.score)).encode())
        objective = rooms.text(self.bench.of.recipe.objective)
        return key_of(format=FORMAT, of=self.bench.key, rows=ids.hexdigest(), objective=objective, **more)

    @property
    def max_tokens(self) -> int:
        return int(self.bench.engine.recipe.tokens_at_once)

    def write(self, name: str, lines: Sequence[Line]) -> None:
        """A ``.jsonl`` of the folder, whole."""
        if self.writes:
            text = "".join(json.dumps(clean(line), allow_nan=False) + "\n" for line in lines)
            atomic.text(self.folder / name, text)


def _line(example: Example, row: Line) -> dict[str, Any]:
    group = hashlib.sha256(array("q", example.prompt).tobytes()).hexdigest()[:12]
    numbers = {"numbers": dict(example.record.numbers)} if example.record.numbers else {}
    return {"id": example.record.id, "group": group} | numbers | {k: v for k, v in row.items() if k != "id"}
