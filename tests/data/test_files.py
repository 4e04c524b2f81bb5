"""Files, folders, data sets and hub ids; whatever cannot be read is told with its line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grainline.data.files import rows
from grainline.data.load import read
from grainline.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"prompt": [{"role": "user", "content": f"Question {n}?"}], "chosen": f"Yes {n}.", "rejected": f"No {n}."}
    for n in range(4)
]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)


def _arrow(path: Path, *, stream: bool) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table)


def _parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.jsonl": lambda p: p.write_text(TEXT),
    "bom.jsonl": lambda p: p.write_text(TEXT, encoding="utf-8-sig"),
    "crlf.jsonl": lambda p: p.write_bytes(TEXT.replace("\n", "\r\n").encode()),
    "a.json": lambda p: p.write_text(json.dumps(ROWS, indent=1)),
    "lines.json": lambda p: p.write_text(TEXT),
    "a.jsonl.gz": lambda p: p.write_bytes(gzip.compress(TEXT.encode())),
    "a.json.gz": lambda p: p.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "a.parquet": _parquet,
    "stream.arrow": lambda p: _arrow(p, stream=True),
    "file.arrow": lambda p: _arrow(p, stream=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_records(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    loaded = read(tmp_path / name)
    assert loaded.problems == []
    assert loaded.digest == read(ROWS).digest
    assert loaded.records[1].where == f"{name}:2"
    assert loaded.records[1].id == f"{name.split('.')[0]}:2"


def test_datasets(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_list(ROWS)
    assert read(data).digest == read(ROWS).digest
    assert read(datasets.DatasetDict(test=data), split="test").digest == read(ROWS).digest
    data.save_to_disk(str(tmp_path / "saved"))
    assert read(tmp_path / "saved").digest == read(ROWS).digest
    with pytest.raises(DataError, match=r"no split 'tset'\. Did you mean 'test'\?"):
        read(datasets.DatasetDict(test=data), split="tset")


def test_folders_have_a_file_or_shards_for_each_split(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(TEXT)
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / "data").mkdir()
    for n in range(2):
        (tmp_path / "data" / f"train-0000{n}-of-00002.jsonl").write_text(TEXT.replace("Question", f"Question {n}"))
    assert len(read(tmp_path, split="test").records) == 4
    train = read(tmp_path)
    assert [r.id for r in train.records][3:5] == ["train-00000-of-00002:4", "train-00001-of-00002:1"]
    with pytest.raises(
        DataError, match=r"no file of split 'tests'\. Did you mean 'test'\? There are: test, train-00000"
    ):
        read(tmp_path, split="tests")
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(TEXT.encode()))
    with pytest.raises(DataError, match=r"several files could be split 'test': test.jsonl, test.jsonl.gz\. Name one"):
        read(tmp_path, split="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"the folder holds no data files\. I read: \.jsonl, \.json,"):
        read(tmp_path / "empty")


CUT = gzip.compress(TEXT.encode() * 50)[:60]
BROKEN: dict[str, tuple[bytes, str]] = {
    "a.jsonl": (TEXT.encode() + b'{"prompt": \n', "a.jsonl:5: broken JSON: Expecting value at column"),
    "pretty.json": (b'{\n "prompt": "a"\n}', "pretty.json: the file is one object, not rows. Write an array"),
    "list.jsonl": (TEXT.encode() + b"[1]\n", "list.jsonl:5: the row is not an object but a list."),
    "word.json": (b'["a"]', "word.json:1: the row is not an object but a str."),
    "deep.jsonl": (TEXT.encode() + b"[" * 10**5 + b"\n", "deep.jsonl:5: unreadable JSON: lists or objects nested too"),
    "long.jsonl": (TEXT.encode() + b"9" * 5000 + b"\n", "long.jsonl:5: unreadable JSON: a number of too many digits."),
    "deep.json": (b"[" * 10**5, "deep.json: unreadable JSON: lists or objects nested too deeply."),
    "array.json": (b'[{"prompt": 1},\n{', "array.json:2: broken JSON: Expecting property name"),
    "latin.jsonl": (TEXT.encode() + '{"prompt": "é"}\n'.encode("latin-1"), "latin.jsonl:5: the text is not UTF-8."),
    "latin.json": ('[\n"é"]'.encode("latin-1"), "latin.json:2: the text is not UTF-8. Save it as UTF-8."),
    "fake.jsonl.gz": (TEXT.encode(), "fake.jsonl.gz:1: cannot be read on: Not a gzipped file"),
    "cut.jsonl.gz": (CUT, "cannot be read on: Compressed file ended before the end-of-stream marker"),
    "empty.jsonl": (b"", "empty.jsonl: there are no rows."),
    "blank.json": (b"\n \n", "blank.json: there are no rows."),
    "none.json": (b"[]", "none.json: there are no rows."),
    "a.csv": (b"a,b", "a.csv: unknown ending '.csv'. I read: .jsonl, .json, .jsonl.gz, .json.gz, .parquet, .arrow."),
    "b.CSV": (b"a,b", "In Python: datasets.Dataset.from_csv('b.CSV').to_json('b.jsonl')."),
    "a.parquet": (b"PAR1 not really", "a.parquet: cannot be read: "),
    "a.arrow": (b"ARROW1 not really", "a.arrow: cannot be read: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_told_in_a_sentence(tmp_path: Path, name: str) -> None:
    content, sentence = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    try:
        problems = read(tmp_path / name).problems
    except DataError as problem:
        problems = [problem]
    assert len(problems) == 1
    assert sentence in str(problems[0])
    assert "\n" not in str(problems[0])


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(TEXT)
    with pytest.raises(DataError, match=r"there is no such file or folder\. Did you mean 'pairs.jsonl'\?"):
        read(tmp_path / "pair.jsonl")


def test_hub_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_list(ROWS))
    loaded = read("someone/pairs", split="train")
    assert loaded.records[0].id == "someone/pairs:1"

    def fail(name: str, split: str) -> None:
        raise ConnectionError("Couldn't reach 'someone/pairs' on the Hub (OfflineModeIsEnabled)\nmore")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        read("someone/pairs")
    assert str(caught.value) == (
        "someone/pairs: no file of that name, and the hub gives no such data set (HF_HUB_OFFLINE is set): "
        "Couldn't reach 'someone/pairs' on the Hub (OfflineModeIsEnabled)."
    )


def test_the_hub_offline_for_real() -> None:
    with pytest.raises(DataError, match="no file of that name, and the hub gives no such data set"):
        read("grainline-tests/no-such-data")


def test_other_things_are_no_source() -> None:
    with pytest.raises(DataError, match=r"cannot read rows from a int\. Give a path, a hub id, a Dataset or"):
        read(5)


def test_a_packaged_set_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or file of that name is nearer; a path is never taken for one."""
    monkeypatch.chdir(tmp_path)
    name, found = rows("house", split="test")
    assert (name, next(found).where) == ("house", "test.jsonl:1")
    with pytest.raises(DataError, match="no such file or folder"):
        rows("./somewhere/house/", split="test")
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "test.jsonl").write_text('{"mine": 1}\n')
    assert next(rows("house", split="test")[1]).row == {"mine": 1}
