"""Where records come from: files, folders, the hub, data sets in memory. Every row is checked; nothing is guessed.

``where`` of a record is "file:row": the line of a .jsonl file, else the row's number, both from 1.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from grainline.data import columns, files, formats
from grainline.errors import DataError
from grainline.types import Record

Read = Record | DataError | formats.Skipped
"""What becomes of a raw row: a record, why it cannot be used, or why by its nature it makes none."""


class Loaded(NamedTuple):
    """What was read: the usable records, and why the other rows are not."""

    records: list[Record]
    problems: list[DataError]  # one per unusable row, in order
    name: str  # of the source, for messages
    digest: str  # sha256 of the records' content in order; ids and file names do not count
    passed_over: Mapping[str, int] = MappingProxyType({})  # rows that by nature make no record ("ties"): why, how many


def read(source: Any, *, split: str = "train", limit: int | None = None, format: str = "") -> Loaded:
    """Records of a file, folder, hub id, ``datasets.Dataset`` or list of dicts; only its first ``limit`` rows.

    ``format`` names the public data set whose native columns the rows have, one of ``formats.names()``; "" = ours.
    A source that cannot be read at all is raised; a row that cannot be used is collected in ``problems``.
    """
    name, rows = stream(source, split=split, limit=limit, format=format)
    records: list[Record] = []
    problems: list[DataError] = []
    passed_over: Counter[str] = Counter()
    seen: dict[str, str] = {}  # id -> where
    for row in rows:
        if isinstance(row, formats.Skipped):
            passed_over[row.why] += 1
        elif isinstance(row, DataError):
            problems.append(row)
        elif row.id in seen:
            what = f"id {row.id!r} is that of {seen[row.id]}."
            problems.append(DataError(what, where=f"{row.where} id", instead="Give each row its own id."))
        else:
            seen[row.id] = row.where
            records.append(row)
    if not records and not problems:
        raise nothing(name, passed_over)
    columns.same_kind(records, where=name)
    return Loaded(records, problems, name, _digest(records), passed_over)


def stream(
    source: Any, *, split: str = "train", limit: int | None = None, format: str = ""
) -> tuple[str, Iterator[Read]]:
    """The source's name, and what becomes of its rows, one by one; arguments as for :func:`read`.

    What takes more than one row to see is not looked for here: ids that come twice, pairs among labelled rows.
    """
    name, rows = raw(source, split=split, limit=limit, format=format)
    return name, _each(rows, guess=not format)


def raw(
    source: Any, *, split: str = "train", limit: int | None = None, format: str = ""
) -> tuple[str, Iterator[files.Row]]:
    """The same before rows are read: each a mapping in our columns, a DataError, :class:`formats.Skipped`, or what else
    stood in its place."""
    if limit is not None and limit < 1:
        raise DataError(f"limit {limit} asks for no rows.")
    name, rows = files.rows(source, split=split)
    rows = islice(rows, limit)
    return name, formats.converted(format, rows) if format else rows


def named(rows: Iterable[files.Row]) -> Iterator[dict[str, Any] | DataError | formats.Skipped]:
    """Raw rows, each with an ``id``: its own, or the file's name and its line."""
    for where, default, row in rows:
        if isinstance(row, (DataError, formats.Skipped)):
            yield row
            continue
        try:
            id = id_of(row, default, where=where)
        except DataError as problem:
            yield problem
            continue
        yield {"id": id} | {key: value for key, value in row.items() if key != "id"}


def nothing(name: str, passed_over: Mapping[str, int]) -> DataError:
    """Says of a source without a row to use or to mend why that is."""
    why = f"no row makes a record: {', '.join(f'{n} {what}' for what, n in passed_over.items())}."
    return DataError(why if passed_over else "there are no rows.", where=name)


def refuse(loaded: Loaded, *, skip_bad_rows: bool = False) -> None:
    """Raise one DataError for all problems of ``loaded``, naming the first three.

    With ``skip_bad_rows`` raise only if no usable record is left.
    """
    bad, good = len(loaded.problems), len(loaded.records)
    if bad and not (skip_bad_rows and good):
        raise refusal(loaded.name, loaded.problems[:3], bad=bad, good=good)


def refusal(name: str, first: Iterable[DataError], *, bad: int, good: int) -> DataError:
    """What is said of ``bad`` unusable rows beside ``good`` ones, naming the ``first``; what several say, once."""
    alike: dict[tuple[str, str], list[str]] = {}
    for problem in first:
        alike.setdefault((problem.what, problem.instead), []).append(problem.where)
    said = [
        str(DataError(what, where=", ".join(rows), instead=instead)).rstrip(".")
        for (what, instead), rows in alike.items()
    ]
    named = sum(map(len, alike.values()))
    more = f"; and {bad - named} more" if bad > named else ""
    return DataError(
        f"{bad} of {bad + good} rows cannot be used: {'; '.join(said)}{more}.",
        where=name,
        instead="Mend them, or set skip_bad_rows=true to leave them out." if good else "No row is left.",
    )


def _each(rows: Iterable[files.Row], *, guess: bool) -> Iterator[Read]:
    """``guess``: let the first problem say of which public data set the row looks like."""
    for where, default, row in rows:
        if isinstance(row, formats.Skipped):
            yield row
            continue
        try:
            if isinstance(row, DataError):
                raise row
            id = id_of(row, default, where=where)
            yield columns.record(row, where=where, id=id)
        except DataError as problem:
            yield _named(problem, row) if guess else problem
            guess = False


def _named(problem: DataError, row: Any) -> DataError:
    """The same, with the one remedy if the row is a public data set's own."""
    name = formats.resembled(row)
    remedy = f"This looks like {name}: set format={name}."
    return DataError(problem.what, where=problem.where, instead=remedy) if name else problem


def id_of(row: Any, default: str, *, where: str) -> str:
    """What a raw row is called: its own ``id``, else ``default``."""
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
