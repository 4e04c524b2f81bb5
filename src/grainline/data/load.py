"""Where records come from: files, folders, the hub, data sets in memory. Every row is checked; nothing is guessed.

``where`` of a record is "file:row": the line of a .jsonl file, else the row's number, both from 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from grainline.data import columns, files
from grainline.errors import DataError
from grainline.types import Record


class Loaded(NamedTuple):
    """What was read: the usable records, and why the other rows are not."""

    records: list[Record]
    problems: list[DataError]  # one per unusable row, in order
    name: str  # of the source, for messages
    digest: str  # sha256 of the records' content in order; ids and file names do not count


def read(source: Any, *, split: str = "train", limit: int | None = None) -> Loaded:
    """Records of a file, folder, hub id, ``datasets.Dataset`` or list of dicts; only its first ``limit`` rows.

    A source that cannot be read at all is raised; a row that cannot be used is collected in ``problems``.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit {limit} asks for no rows.")
    name, rows = files.rows(source, split=split)
    records, problems = _records(islice(rows, limit))
    if not records and not problems:
        raise DataError("there are no rows.", where=name)
    columns.same_kind(records, where=name)
    return Loaded(records, problems, name, _digest(records))


def refuse(loaded: Loaded, *, skip_bad_rows: bool = False) -> None:
    """Raise one DataError for all problems of ``loaded``, naming the first three.

    With ``skip_bad_rows`` raise only if no usable record is left.
    """
    bad, good = len(loaded.problems), len(loaded.records)
    if not bad or (skip_bad_rows and good):
        return
    first = "; ".join(str(problem).rstrip(".") for problem in loaded.problems[:3])
    more = f"; and {bad - 3} more" if bad > 3 else ""
    raise DataError(
        f"{bad} of {bad + good} rows cannot be used: {first}{more}.",
        where=loaded.name,
        instead="Mend them, or set skip_bad_rows=true to leave them out." if good else "No row is left.",
    )


def _records(rows: Iterable[files.Row]) -> tuple[list[Record], list[DataError]]:
    records: list[Record] = []
    problems: list[DataError] = []
    seen: dict[str, str] = {}  # id -> where
    for where, default, row in rows:
        try:
            if isinstance(row, DataError):
                raise row
            id = _id(row, default, where=where)
            record = columns.record(row, where=where, id=id)
            if id in seen:
                raise DataError(
                    f"id {id!r} is that of {seen[id]}.", where=f"{where} id", instead="Give each row its own id."
                )
        except DataError as problem:
            problems.append(problem)
        else:
            seen[id] = where
            records.append(record)
    return records, problems


def _id(row: Any, default: str, *, where: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"the row is not an object but a {type(row).__name__}.", where=where)
    value = row.get("id")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataError(f"{value!r} is not an id.", where=f"{where} id", instead="Write a text or a whole number.")
    return str(value)


def _digest(records: Iterable[Record]) -> str:
    """The same for the same rows in the same order, in whatever file or format they came."""
    digest = hashlib.sha256()
    for content in _contents(records):
        digest.update(json.dumps(content, ensure_ascii=True, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _contents(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        yield {key: value for key, value in record._asdict().items() if key not in ("id", "where")}
