"""Sources give the same records in whatever form they come; every bad row is told, with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from grainline.data.load import read, refuse
from grainline.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"prompt": [{"role": "user", "content": f"Question {n}?"}], "chosen": f"Yes {n}.", "rejected": f"No {n}."}
    for n in range(4)
]


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_records_know_their_place(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n" + lines(ROWS[:1]) + "\n" + lines([ROWS[1] | {"id": "mine"}]))
    loaded = read(file)
    assert [(r.where, r.id) for r in loaded.records] == [("pairs.jsonl:2", "pairs:2"), ("pairs.jsonl:4", "mine")]
    assert (loaded.problems, loaded.name) == ([], "pairs.jsonl")
    refuse(loaded)
    assert len(read(str(file), limit=1).records) == 1


def test_all_problems_are_collected_and_refused_together(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    bad = [
        '{"prompt": "a", ',
        "[1]",
        lines([ROWS[0] | {"chosen": ""}]).strip(),
        lines([ROWS[1] | {"weight": -1}]).strip(),
    ]
    file.write_text(lines(ROWS[:2]) + "\n".join(bad) + "\n")
    loaded = read(file)
    assert len(loaded.records) == 2
    assert [p.where for p in loaded.problems] == [
        "pairs.jsonl:3", "pairs.jsonl:4", "pairs.jsonl:5 chosen", "pairs.jsonl:6 weight",
    ]  # fmt: skip
    with pytest.raises(DataError) as caught:
        refuse(loaded)
    message = str(caught.value)
    assert message.startswith("pairs.jsonl: 4 of 6 rows cannot be used: pairs.jsonl:3: broken JSON: ")
    assert "pairs.jsonl:4: the row is not an object but a list" in message
    assert message.endswith("; and 1 more. Mend them, or set skip_bad_rows=true to leave them out.")
    refuse(loaded, skip_bad_rows=True)
    with pytest.raises(DataError, match="No row is left"):
        refuse(loaded._replace(records=[]), skip_bad_rows=True)


def test_what_several_rows_say_is_said_once() -> None:
    with pytest.raises(DataError) as caught:
        refuse(read([{"question": "a", "answer": "b"}] * 5))
    message = str(caught.value)
    assert message.startswith("rows: 5 of 5 rows cannot be used: rows:1, rows:2, rows:3: the row has no answer. It ")
    assert message.count("the row has no answer") == 1
    assert message.endswith("; and 2 more. No row is left.")


def test_ids_are_unique(tmp_path: Path) -> None:
    loaded = read([ROWS[0] | {"id": "a"}, ROWS[1] | {"id": 7}, ROWS[2] | {"id": "a"}, ROWS[3] | {"id": 1.5}])
    assert [r.id for r in loaded.records] == ["a", "7"]
    assert [str(p) for p in loaded.problems] == [
        "rows:3 id: id 'a' is that of rows:1. Give each row its own id.",
        "rows:4 id: 1.5 is not an id. Write a text or a whole number.",
    ]


def test_each_row_is_classified_on_its_own_and_kinds_do_not_mix() -> None:
    labelled = {"prompt": "a", "completion": "b", "label": True}
    with pytest.raises(DataError, match=r"rows:1 is a pair, rows:3 is labelled"):
        read([ROWS[0], ROWS[1], labelled])
    # a conversational first row does not make the second one conversational
    mixed = read([ROWS[0], {"prompt": "The sky is", "chosen": " blue", "rejected": " green"}]).records
    assert [type(record.prompt) for record in mixed] == [tuple, str]


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(ROWS))
    (tmp_path / "b.json").write_text(json.dumps(ROWS, indent=2))
    digests = {read(tmp_path / "a.jsonl").digest, read(tmp_path / "b.json").digest, read(ROWS).digest}
    assert len(digests) == 1
    assert read(ROWS[::-1]).digest not in digests
    assert read([*ROWS[:3], ROWS[3] | {"weight": 2.0}]).digest not in digests


def test_nothing_to_read() -> None:
    with pytest.raises(DataError, match=r"^rows: there are no rows\.$"):
        read([])
    with pytest.raises(DataError, match="limit 0"):
        read(ROWS, limit=0)


def test_load_never_imports_torch() -> None:
    import subprocess
    import sys

    code = "import sys, grainline.data.load, grainline.data.mixture as m; m.mix([(grainline.data.load.read("
    code += "[{'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}]).records, 2)], seed=0)\n"
    code += "assert not {'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.real
@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("hh_harmless/train", 1499), ("hh_harmless/test", 500), ("qa_feedback/spans_train", 335),
        ("qa_feedback/prefs_train", 1810), ("pandalm/train", 525), ("persona/train", 2270), ("hhh_eval/test", 121),
        ("llmbar/test", 300),
    ],
)  # fmt: skip
def test_real_files_have_no_bad_row(shared_data: Path, path: str, count: int) -> None:
    loaded = read(shared_data / f"{path}.jsonl.gz")
    assert (len(loaded.records), loaded.problems) == (count, [])
    assert all(record.is_pair and isinstance(record.prompt, tuple) for record in loaded.records)
    folder, _, split = path.partition("/")
    assert read(shared_data / folder, split=split).digest == loaded.digest


@pytest.mark.real
def test_real_error_spans_are_read(shared_data: Path) -> None:
    records = read(shared_data / "qa_feedback" / "spans_train.jsonl.gz").records
    spans = [span for record in records for span in record.answers[1].spans]
    assert len(spans) > 500
    assert {span.score for span in spans} == {0.0}
    assert len({span.aspect for span in spans}) == 2
    with gzip.open(shared_data / "qa_feedback" / "spans_train.jsonl.gz") as lines_:
        assert len(spans) == sum(len(json.loads(line)["rejected_spans"]) for line in lines_)
