"""Steps of curation, one after another: the rows of a source become a better file, whatever stops the job on the way.

::

    source -> step 1 -> step 2 -> ... -> OUT.jsonl, and OUT.provenance.json beside it

Each step reads all that the step before it made. While the job is at work its folder, ``OUT.work``, holds

==============  ====================================================================================================
``job.json``    what the job is: steps, seed, versions, digests of the source and of files the steps read
``2.jsonl``     the journal of step 2: for each row that went in one line, the list of rows made of it, or the reason
                why it was dropped
``2.json``      what step 2 did, once it is done; the journal before is then removed
==============  ====================================================================================================

A job that was killed, at whatever moment, is carried on by the same call: a torn last line is cut off, rows that the
journal tells of are not handed to the step again (a step that is ``whole`` begins anew), and the file at the end has
the bytes it would have had. Memory does not grow with the rows, unless a step's own does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from filelock import FileLock, Timeout

from grainline import atomic, journal, places, provenance, rooms
from grainline.curation._seam import Curation, Row, identity
from grainline.data import files, formats, load
from grainline.errors import DataError, RunError, SpecError
from grainline.progress import say

REST = "train"
"""Where rows stand that name no split, in a folder of splits."""
DEAR = frozenset({"reward", "model", "endpoint"})
"""Needs of steps that are not carried out merely to see what would be."""


class Curated(NamedTuple):
    """What a job made."""

    path: Path
    facts: Mapping[str, Any]  # as in the provenance file


def curate(
    source: Any,
    steps: Sequence[Any],
    out: str | Path,
    *,
    seed: int = 0,
    split: str = "train",
    format: str = "",
    limit: int | None = None,
    skip_bad_rows: bool = False,
    quiet: bool = True,
) -> Curated:
    """Carry the rows of ``source`` through ``steps`` into ``out``.

    >>> curate("pairs.jsonl", ["dedupe", "filter:longest=4000", "segment"], "better.jsonl")

    Args:
        source: path, hub id, ``datasets.Dataset`` or list of dicts, as for :func:`grainline.data.load.read`.
        steps: methods of the room ``curation``, as text, mapping or value.
        out: a .jsonl file; or a folder, which gets one file for each value of the rows' column ``split``.
        limit: only the source's first rows.
        skip_bad_rows: leave out rows that cannot be read, and count them, instead of refusing to start.

    Raises:
        SpecError: no step of that name, or an option that it does not have.
        DataError: a source or a row that cannot be used; it names the step, the row and the column.
        RunError: ``out`` is there already, or another, unfinished job is.
    """
    job = _job(_Source(source, split, format, limit, skip_bad_rows), steps, seed)
    return _made(job, _checked(Path(out)), quiet=quiet)


def cached(
    source: Any,
    steps: Sequence[Any],
    *,
    seed: int = 0,
    split: str = "train",
    format: str = "",
    limit: int | None = None,
    skip_bad_rows: bool = False,
    quiet: bool = True,
    spend: bool = True,
) -> Curated:
    """The same into a folder of the cache that belongs to this job alone; made once.

    Raises:
        RunError: steps that take a model would have to be carried out, and ``spend`` is False.
    """
    job = _job(_Source(source, split, format, limit, skip_bad_rows), steps, seed)
    out = places.cache_dir() / "curated" / job.fingerprint
    dear = [rooms.text(step) for step in job.steps if step.needs & DEAR]
    if dear and not spend and not out.exists():
        raise RunError(
            f"the rows are yet to be curated, and {', '.join(dear)} may take long.",
            where="curate",
            instead="Make them first: grainline curate --recipe FILE.",
        )
    return _made(job, out, quiet=quiet)


# --------------------------------------------------------------------------------------------------------- what it is


class _Source:
    """The rows of a source, each with an id; to be read as often as one likes."""

    def __init__(self, source: Any, split: str, format: str, limit: int | None, skip: bool) -> None:
        self._source, self._skip = source, skip
        self._how: dict[str, Any] = {"split": split, "format": format, "limit": limit}

    def __iter__(self) -> Iterator[Row]:
        return (found for found in self._read()[1] if isinstance(found, dict))

    def _read(self) -> tuple[str, Iterator[dict[str, Any] | DataError | formats.Skipped]]:
        name, rows = load.raw(self._source, **self._how)
        return name, load.named(rows)

    def facts(self) -> dict[str, Any]:
        """Name, digest and numbers: one pass over all rows, so that a bad one is found before the first step."""
        name, rows = self._read()
        digest, number, bad = hashlib.sha256(), 0, 0
        first: list[DataError] = []
        passed_over: Counter[str] = Counter()
        for row in rows:
            if isinstance(row, dict):
                number += 1
                digest.update(files.line(row))
            elif isinstance(row, DataError):
                bad += 1
                first = [*first, row][:3]
            else:
                passed_over[row.why] += 1
        if bad and not (self._skip and number):
            raise load.refusal(name, first, bad=bad, good=number)
        if not number:
            raise load.nothing(name, passed_over)
        found = {"path": name, **self._how, "digest": digest.hexdigest(), "rows": number}
        return found | {"left_out": bad, "passed_over": dict(passed_over)}


class _Job(NamedTuple):
    """All that the file at the end depends on."""

    source: _Source
    steps: tuple[Curation, ...]
    seed: int
    facts: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:32]


def _job(source: _Source, steps: Sequence[Any], seed: int) -> _Job:
    chain = tuple(rooms.resolve("curation", step) for step in steps)
    if not chain:
        raise SpecError("there are no steps.", instead="Name at least one; grainline ls curation lists them.")
    facts = {
        "steps": [rooms.text(step) for step in chain],
        "seed": seed,
        "source": source.facts(),
        "reads": provenance.read_by(chain),
        "versions": provenance.versions(),
    }
    return _Job(source, chain, seed, facts)


# ------------------------------------------------------------------------------------------------------ carrying it out


def _made(job: _Job, out: Path, *, quiet: bool) -> Curated:
    with _alone(out, quiet):
        work = out.with_name(f"{out.name}.work")
        if out.exists():
            facts = _finished(job, out)
            shutil.rmtree(work, ignore_errors=True)  # the last thing that a job does
            say(f"curated: {out} is made already", quiet=quiet)
            return Curated(out, facts)
        _claim(job, work)
        rows: Iterable[Row] = job.source
        number, done = job.facts["source"]["rows"], list[dict[str, Any]]()
        for n, step in enumerate(job.steps, start=1):
            found = journal.carry(step, rows, number, work / f"{n}.jsonl", seed=job.seed, quiet=quiet)
            (work / f"{n - 1}.jsonl").unlink(missing_ok=True)
            rows, number, done = journal.Kept(work / f"{n}.jsonl"), found["made"], [*done, found]
        if not number:
            shutil.rmtree(work)
            why = "; ".join(f"{one['step']}: {why} ({n})" for one in done for why, n in one["dropped"].items())
            raise DataError("no row is left.", where=job.facts["source"]["path"], instead=f"Dropped were: {why}.")
        facts = job.facts | {"made": done, "out": _write(rows, out, work)}
        provenance.write(_beside(out) if out.suffix else work / "out" / _beside(out).name, facts)
        _put(work / "out", out)
        shutil.rmtree(work)
        return Curated(out, facts)


@contextlib.contextmanager
def _alone(out: Path, quiet: bool) -> Iterator[None]:
    """One process at a time; the others wait, and find what it made."""
    name = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:32]
    lock = FileLock(places.cache_dir() / "locks" / name)
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{out}: another process is at work on it; waiting", quiet=quiet)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _checked(out: Path) -> Path:
    if out.suffix not in (".jsonl", "") or (out.suffix and out.is_dir()):
        raise DataError(f"cannot write {out.suffix!r}.", where=str(out), instead="Write OUT.jsonl, or a folder.")
    return out


def _beside(out: Path) -> Path:
    """Where the facts of ``out`` stand."""
    return out.with_suffix(".provenance.json") if out.suffix else out / "provenance.json"


def _finished(job: _Job, out: Path) -> dict[str, Any]:
    """The facts of ``out`` as it stands, if this very job made it."""
    facts = _known(_beside(out))
    changed = _changed(facts, job.facts)
    if changed:
        what = f"is there already, made with other {' and '.join(changed)}." if facts else "is there already."
        raise RunError(what, where=str(out), instead="Remove it, or write to another place.")
    told = {out: facts["out"]} if out.suffix else {out / f"{part}.jsonl": one for part, one in facts["out"].items()}
    for file, one in told.items():
        if not file.is_file() or provenance.sha256(file) != one["sha256"]:
            raise RunError("is not what was written there.", where=str(file), instead=f"Remove {out}, to make it anew.")
    return facts


def _claim(job: _Job, work: Path) -> None:
    """Make ``work`` this job's folder, or find that it is."""
    if not work.exists():
        work.mkdir(parents=True)
        provenance.write(work / "job.json", job.facts)
    changed = _changed(_known(work / "job.json"), job.facts)
    if changed and any(file.stat().st_size for file in work.glob("*.jsonl")):
        raise RunError(
            f"an unfinished job with other {' and '.join(changed)} stands here.",
            where=str(work),
            instead="Carry that one on as it was begun, or remove the folder.",
        )
    provenance.write(work / "job.json", job.facts)


def _known(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two jobs differ in."""
    wanted = json.loads(json.dumps(now))
    return [key for key in wanted if before.get(key) != wanted[key]]


# ------------------------------------------------------------------------------------------------------------- the end


def _write(rows: Iterable[Row], out: Path, work: Path) -> dict[str, Any]:
    """Write all rows to ``work/out``, a file or a folder of splits; their numbers and digests."""
    target = work / "out"
    for old in (target,) if target.exists() else ():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    digests: dict[str, Any] = {}
    numbers: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        streams: dict[str, IO[bytes]] = {}
        for row in rows:
            part = _part(row) if not out.suffix else ""
            if part not in streams:
                file = target / f"{part}.jsonl" if part else target
                file.parent.mkdir(parents=True, exist_ok=True)
                streams[part], digests[part] = stack.enter_context(file.open("wb")), hashlib.sha256()
            line = files.line(row)
            streams[part].write(line)
            digests[part].update(line)
            numbers[part] += 1
    found = {part: {"rows": numbers[part], "sha256": digests[part].hexdigest()} for part in sorted(streams)}
    return found if not out.suffix else found[""]


def _part(row: Row) -> str:
    part = row.get("split")
    if part is None:
        return REST
    if not isinstance(part, str) or not part.isidentifier():
        raise DataError(f"{part!r} is no name of a split.", where=f"{identity(row)} split", instead="Write one word.")
    return part


def _put(made: Path, out: Path) -> None:
    """Let the finished file or folder appear, whole."""
    if made.is_file():
        made.replace(out)
        return
    with atomic.folder(out) as folder:
        for file in made.iterdir():
            file.rename(folder / file.name)
