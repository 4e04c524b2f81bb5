"""One step of curation, carried through or on: its journal has one line for each row that went in, in order.

A line is the list of rows that were made of it, or the reason why it was dropped. Each is written as soon as the step
has made it, so a process that is killed loses nothing but what it was at.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from grainline import places, provenance, rooms
from grainline.curation._seam import Bench, Curation, Dropped, Row, identity
from grainline.data import files
from grainline.errors import DataError, GrainlineError
from grainline.progress import follow


class Kept:
    """The rows that a step made: read from its journal as often as one likes."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal

    def __iter__(self) -> Iterator[Row]:
        with self._journal.open("rb") as stream:
            for line in stream:
                made = json.loads(line)
                if isinstance(made, list):
                    yield from made


class _Watched:
    """Rows on their way into a step: how many were handed out, and the last of them for messages."""

    def __init__(self, rows: Iterable[Row], start: int) -> None:
        self.rows, self.start = rows, start
        self.last: Row | None = None

    def __iter__(self) -> Iterator[Row]:
        for row in islice(self.rows, self.start, None):
            self.last = row
            yield row


def carry(step: Curation, rows: Iterable[Row], number: int, file: Path, *, seed: int, quiet: bool) -> dict[str, Any]:
    """Carry one step through, or on; what it did."""
    told = file.with_suffix(".json")
    if told.is_file():
        return json.loads(told.read_text(encoding="utf-8"))
    name = rooms.text(step)
    tally = _Tally()
    if file.is_file() and not step.whole:
        tally.recover(file)
    given = _Watched(rows, tally.rows)
    with file.open("ab" if tally.rows else "wb") as stream, _naming(name, given):
        facts = _fill(step, given, number, stream, tally, seed=seed, quiet=quiet)
    if tally.rows != number:
        raise GrainlineError(f"{name} answered {tally.rows} of {number} rows: a fault of this step.")
    found = {"step": name, "rows": number, "made": tally.made, "dropped": dict(sorted(tally.dropped.items()))}
    found |= {"facts": facts} if facts else {}
    provenance.write(told, found)
    return found


def _fill(
    step: Curation, given: _Watched, number: int, stream: IO[bytes], tally: _Tally, *, seed: int, quiet: bool
) -> dict[str, Any]:
    """Let the step make rows, and write them down one by one; what it tells of them."""
    name = rooms.name_of(type(step)).replace("/", "_")
    kept = places.cache_dir() / "curation" / name
    kept.mkdir(parents=True, exist_ok=True)
    with step.open(Bench(kept, seed, quiet)) as makes:
        for made in follow(makes(given), rooms.text(step), total=number, done=tally.rows, quiet=quiet):
            said = made.why if isinstance(made, Dropped) else _numbered(made)
            stream.write(files.line(said))
            stream.flush()  # a process that is killed has then lost nothing that it was told
            tally.add(said)
        return dict(makes.told(Kept(Path(stream.name)))) if hasattr(makes, "told") else {}


class _Tally:
    """What a journal tells: rows that went in, rows that were made, rows dropped and why."""

    def __init__(self) -> None:
        self.rows = self.made = 0
        self.dropped: Counter[str] = Counter()

    def add(self, said: Any) -> None:
        self.rows += 1
        if isinstance(said, list) and said:
            self.made += len(said)
        else:
            self.dropped[said or "dropped"] += 1

    def recover(self, journal: Path) -> None:
        """Read what stands there; a line that was not finished is cut off, with all behind it."""
        end = 0
        with journal.open("r+b") as stream:
            for line in stream:
                try:
                    said = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self.add(said)
                end += len(line)
            stream.truncate(end)


def _numbered(made: Sequence[Row]) -> list[Row]:
    """Rows made of one, under ids of their own."""
    copies: Counter[str] = Counter()
    found = []
    for row in made:
        name = identity(row)
        copies[name] += 1
        found.append(row if copies[name] == 1 else {**row, "id": f"{name}#{copies[name]}"})
    return found


@contextlib.contextmanager
def _naming(step: str, given: _Watched) -> Iterator[None]:
    """Say of a row's fault which step met it, and at which row."""
    try:
        yield
    except DataError as error:
        where = error.where or (identity(given.last) if given.last is not None else "")
        raise DataError(error.what, where=f"{step}, {where}", instead=error.instead) from error
