"""Raw rows of a source, each with its place. A row that cannot even be parsed comes as the DataError that says so."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from grainline.errors import DataError, nearest

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".arrow")
_JSON = json.JSONEncoder(ensure_ascii=False, default=str)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Row(NamedTuple):
    """A raw row and its place."""

    where: str  # "file:row"
    id: str  # what it is called if it has no id of its own: "stem:row"
    row: Any  # a mapping, or the DataError that tells why there is none


def rows(source: Any, *, split: str) -> tuple[str, Iterator[Row]]:
    """The source's name, and its raw rows one by one."""
    if isinstance(source, (str, Path)):
        path = Path(os.path.expanduser(source))
        if path.is_dir():
            return path.name, _folder(path, split=split)
        if path.is_file():
            return path.name, _file(path)
        if path == Path(path.name) and packaged(path.name).is_dir():
            return path.name, _folder(packaged(path.name), split=split)
        return str(source), _hub(str(source), split=split)
    if isinstance(source, Mapping):  # a DatasetDict, or one row that should have been in a list
        if split not in source:
            raise DataError(f"no split {split!r}.", instead=nearest(split, map(str, source)))
        source = source[split]
    if hasattr(source, "with_format") and hasattr(source, "column_names"):  # a datasets.Dataset
        return "dataset", _numbered("dataset", source.with_format(None))
    if isinstance(source, (list, tuple)):
        return "rows", _numbered("rows", source)
    raise DataError(
        f"cannot read rows from a {type(source).__name__}.",
        instead="Give a path, a hub id, a Dataset or a list of dicts.",
    )


def line(value: Any) -> bytes:
    """A row, or a list of rows, as one line of a .jsonl file."""
    try:
        return _JSON.encode(value).encode() + b"\n"
    except UnicodeEncodeError:  # half a character can be spelt, not written
        return json.dumps(value, default=str).encode() + b"\n"


def packaged(name: str) -> Path:
    """The folder of a data set that comes with the package: rows, card, recipe."""
    return Path(__file__).parent / "packaged" / name


def _stem(path: Path) -> str:
    """The file's name without the ending that we read by."""
    ending = _suffix(path)
    return path.name[: -len(ending)] if ending else path.name


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return max((s for s in SUFFIXES if name.endswith(s)), key=len, default=None)


def _numbered(name: str, rows: Iterable[Any], *, stem: str | None = None) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        yield Row(f"{name}:{number}", f"{stem or name}:{number}", row)


def _file(path: Path) -> Iterator[Row]:
    suffix = _suffix(path)
    if suffix is None:
        instead = f"I read: {', '.join(SUFFIXES)}."
        if path.suffix.lower() == ".csv":
            instead += f" In Python: datasets.Dataset.from_csv({path.name!r}).to_json({path.stem + '.jsonl'!r})."
        raise DataError(f"unknown ending {path.suffix!r}.", where=path.name, instead=instead)
    if suffix == ".parquet" or suffix == ".arrow":
        return _numbered(path.name, _table(path, parquet=suffix == ".parquet"), stem=_stem(path))
    return _json(path)


def _json(path: Path) -> Iterator[Row]:
    """One object per line; a .json file may also be one array of objects."""
    with _open(path) as stream:
        lines: Iterable[tuple[int, bytes]] = _lines(path, stream)
        if ".jsonl" not in path.name.lower():
            lines = list(lines)
            whole = b"".join(line for _, line in lines).strip()
            if whole.startswith(b"["):
                yield from _numbered(path.name, _array(path, lines), stem=_stem(path))
                return
            if b"\n" in whole and not isinstance(_object(whole, where=path.name), DataError):
                raise DataError(
                    "the file is one object, not rows.",
                    where=path.name,
                    instead="Write an array of objects, or one object per line.",
                )
        for number, line in lines:
            if line.strip():
                where = f"{path.name}:{number}"
                yield Row(where, f"{_stem(path)}:{number}", _object(line, where=where))


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read on: {error}.", where=f"{path.name}:{number + 1}") from error


def _array(path: Path, lines: Iterable[tuple[int, bytes]]) -> list[Any]:
    whole = b"".join(line for _, line in lines)
    try:
        return json.loads(whole.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = whole.count(b"\n", 0, error.start) + 1
        raise DataError("the text is not UTF-8.", where=f"{path.name}:{line}", instead="Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"broken JSON: {error.msg}.", where=f"{path.name}:{error.lineno}") from error
    except (ValueError, RecursionError) as error:
        raise _beyond(error, where=path.name) from error


def _object(line: bytes, *, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return DataError("the text is not UTF-8.", where=where, instead="Save the file as UTF-8.")
    except json.JSONDecodeError as error:
        return DataError(
            f"broken JSON: {error.msg} at column {error.colno}.",
            where=where,
            instead="Each line must be one whole object.",
        )
    except (ValueError, RecursionError) as error:
        return _beyond(error, where=where)


def _beyond(error: Exception, *, where: str) -> DataError:
    """JSON that is well written and that Python does not read: numbers of thousands of digits, endless nesting."""
    what = "lists or objects nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"
    return DataError(f"unreadable JSON: {what}.", where=where, instead="Shorten it, or write it as text.")


def _table(path: Path, *, parquet: bool) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if parquet:
            with pa.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1024):
                    yield from batch.to_pylist()
            return
        with pa.OSFile(str(path)) as file:
            try:
                reader = pa.ipc.open_stream(file)  # as `datasets` writes
            except pa.ArrowInvalid:
                file.seek(0)
                blocks = pa.ipc.open_file(file)
                reader = (blocks.get_batch(n) for n in range(blocks.num_record_batches))
            for batch in reader:
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot be read: {str(error).splitlines()[0]}.", where=path.name) from error


def _folder(path: Path, *, split: str) -> Iterator[Row]:
    """Files named after the split, in order: train.jsonl, or the shards train-00000-of-00002.parquet..."""
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():  # Dataset.save_to_disk
        import datasets

        return rows(datasets.load_from_disk(str(path)), split=split)[1]
    found = [f for f in sorted([*path.glob("*"), *path.glob("data/*")]) if f.is_file() and _suffix(f)]
    if not found:
        raise DataError("the folder holds no data files.", where=str(path), instead=f"I read: {', '.join(SUFFIXES)}.")
    shard = re.compile(re.escape(split) + r"(-\d+(-of-\d+)?)?")
    chosen = [f for f in found if shard.fullmatch(_stem(f))]
    if not chosen:
        raise DataError(f"no file of split {split!r}.", where=str(path), instead=nearest(split, map(_stem, found)))
    stems = [_stem(f) for f in chosen]
    if len(set(stems)) < len(stems) or (split in stems and len(stems) > 1):
        raise DataError(
            f"several files could be split {split!r}: {', '.join(f.name for f in chosen)}.",
            where=str(path),
            instead="Name one of them.",
        )
    return (row for file in chosen for row in _file(file))


def _hub(name: str, *, split: str) -> Iterator[Row]:
    """A data set of the Hugging Face hub, or of its cache when offline."""
    if not _HUB_ID.fullmatch(name) or name.lower().endswith(SUFFIXES):
        raise DataError("there is no such file or folder.", where=name, instead=_beside(name))
    import datasets

    try:
        return _numbered(name, datasets.load_dataset(name, split=split))
    except Exception as error:  # the hub client raises many kinds; all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise DataError(
            f"no file of that name, and the hub gives no such data set{offline}: {reason.rstrip('.')}.",
            where=name,
            instead=_beside(name),
        ) from error


def _beside(name: str) -> str:
    """The files that stand where one was looked for."""
    folder = Path(os.path.expanduser(name)).parent
    there = [f.name for f in folder.iterdir() if _suffix(f) and f.is_file()] if folder.is_dir() else []
    return nearest(Path(name).name, there[:20]) if there else ""
