"""Steps in a chain: the same bytes whatever happened on the way, the facts of what was done, and clear refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from _toy import jsonl
from grainline import curate as curating
from grainline.curate import cached, curate
from grainline.errors import DataError, GrainlineError, RunError, SpecError

STEP = '''
"""A step of the user's own."""

import os, time
from contextlib import contextmanager
from typing import ClassVar

from grainline.curation._seam import Dropped, identity, signed
from grainline.errors import DataError
from grainline.types import spec


@spec
class Double:
    whole: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    drop: str = "never"
    fail: str = "never"
    where: str = ""
    ahead: bool = False
    short: bool = False

    @contextmanager
    def open(self, bench):
        yield lambda rows: self.each(list(rows) if self.ahead else rows, bench)

    def each(self, rows, bench):
        for row in rows:
            time.sleep(float(os.environ.get("SLOW", "0")))
            if self.fail in row["prompt"]:
                where = self.where and f"{identity(row)} {self.where}"
                raise DataError("this is no good.", where=where, instead="Mend.")
            if self.drop in row["prompt"]:
                yield Dropped(f"says {self.drop}")
            else:
                made = signed(row, "double")
                yield [made, {**made, "luck": bench.luck(row).random()}]
            if self.short:
                return


@spec
class _Ranks:
    """Each row gets its place among all: rows are read twice."""

    whole: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()

    @contextmanager
    def open(self, bench):
        yield self.all

    def all(self, rows):
        order = sorted(row["prompt"] for row in rows)
        for row in rows:
            time.sleep(float(os.environ.get("SLOW", "0")))
            yield [{**row, "rank": order.index(row["prompt"])}]
'''


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def double(tmp_path: Path) -> str:
    file = tmp_path / "double.py"
    file.write_text(STEP, encoding="utf-8")
    return str(file)


def ranks(double: str) -> str:
    return f"{double}:_Ranks"


def source(folder: Path, count: int = 6) -> str:
    rows = [{"prompt": f"why {n}?", "chosen": f"So. {n}.", "rejected": f"No {n}."} for n in range(count)]
    rows[1]["id"] = "mine"
    return jsonl(folder / "pairs.jsonl", rows)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_rows_pass_from_step_to_step(tmp_path: Path, double: str) -> None:
    out = tmp_path / "out.jsonl"
    made = curate(source(tmp_path), [f"{double}:Double:drop='why 2'", ranks(double)], out, seed=4)
    rows = lines(out)
    assert [row["id"] for row in rows[:4]] == ["pairs:1", "pairs:1#2", "mine", "mine#2"]  # ids of their own
    assert [row["rank"] for row in rows] == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]
    assert rows[0]["curation"] == [{"step": "double"}]
    assert json.loads((tmp_path / "out.provenance.json").read_text()) == made.facts
    first, second = made.facts["made"]
    assert first == {"step": first["step"], "rows": 6, "made": 10, "dropped": {"says why 2": 1}}
    assert (second["rows"], second["made"], second["dropped"]) == (10, 10, {})
    assert made.facts["seed"] == 4
    assert made.facts["source"]["rows"] == 6
    assert made.facts["out"]["rows"] == 10
    assert {file.name for file in tmp_path.iterdir()} == {
        "pairs.jsonl", "double.py", "out.jsonl", "out.provenance.json", "cache"
    }  # fmt: skip


def test_luck_is_the_seeds_and_the_rows(tmp_path: Path, double: str) -> None:
    def drawn(name: str, **how: Any) -> dict[str, float]:
        made = curate(source(tmp_path), [double + ":Double"], tmp_path / name, **how)
        return {row["id"]: row["luck"] for row in lines(made.path) if "luck" in row}

    plain = drawn("a.jsonl")
    assert drawn("b.jsonl", limit=2) == {key: plain[key] for key in ("pairs:1#2", "mine#2")}
    assert drawn("c.jsonl", seed=1)["mine#2"] != plain["mine#2"]


def test_a_job_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path, double: str) -> None:
    """A real process and kill -9, in a row step, in a whole step and in the row step behind it."""
    steps = [f"{double}:Double:drop='why 7'", ranks(double), double + ":Double"]
    rows = source(tmp_path, 60)
    whole = curate(rows, steps, tmp_path / "whole.jsonl")
    script = Path(__file__).parent / "scripts" / "curated.py"
    out = tmp_path / "killed.jsonl"
    work = tmp_path / "killed.jsonl.work"
    for journal, enough in ((1, 5), (1, 30), (2, 40), (3, 70)):
        job = subprocess.Popen(
            [sys.executable, str(script), rows, str(out), *steps], env=os.environ | {"SLOW": "0.004"}
        )
        while True:
            told = work / f"{journal}.jsonl"
            if told.is_file() and told.read_bytes().count(b"\n") >= enough:
                break
            assert job.poll() is None, "it was done before it was killed"
            time.sleep(0.005)
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        assert not out.exists()
    made = curate(rows, steps, out)
    assert out.read_bytes() == whole.path.read_bytes()
    assert made.facts == whole.facts
    assert not work.exists()


def test_a_torn_line_is_cut_off_wherever_it_was_torn(tmp_path: Path, double: str, monkeypatch: Any) -> None:
    """Every place of the journal's last line but one, and bytes that a disk lost."""
    steps = [double + ":Double", double + ":Double"]
    whole = curate(source(tmp_path, 3), steps, tmp_path / "whole.jsonl").path.read_bytes()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(curating, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            curate(source(tmp_path, 3), steps, tmp_path / "out.jsonl")
    work = tmp_path / "out.jsonl.work"
    journal = (work / "2.jsonl").read_bytes()
    ends = [n for n in range(len(journal)) if n % 41 == 0 or journal[n - 1 : n + 1].count(b"\n")]
    for end, lost in [(n, b"") for n in ends] + [(len(journal) - 9, b"\0" * 9)]:
        kept = {file.name: file.read_bytes() for file in work.iterdir()}
        (work / "2.jsonl").write_bytes(journal[:end] + lost)
        (work / "2.json").unlink()
        # Step 2 reads what step 1 made, so its journal must be there as it was at that moment.
        (work / "1.jsonl").write_bytes(_first(tmp_path, steps))
        curate(source(tmp_path, 3), steps, tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_bytes() == whole
        (tmp_path / "out.jsonl").unlink()
        (tmp_path / "out.provenance.json").unlink()
        work.mkdir()
        for name, content in kept.items():
            (work / name).write_bytes(content)


def _first(folder: Path, steps: list[str]) -> bytes:
    """The journal of the first step."""
    out = folder / "one.jsonl"
    if not out.is_file():
        curate(source(folder, 3), steps[:1], out)
    rows = lines(out)
    return b"".join(json.dumps(rows[n : n + 2]).encode() + b"\n" for n in range(0, len(rows), 2))


def test_another_job_does_not_go_on_in_this_ones_folder(tmp_path: Path, double: str) -> None:
    out = tmp_path / "out.jsonl"
    rows = source(tmp_path)
    failing = f"{double}:Double:fail='why 3'"
    with pytest.raises(DataError, match="this is no good"):
        curate(rows, [failing], out)
    for change, differs in (
        ({"steps": [double + ":Double"]}, "steps"),
        ({"seed": 1}, "seed"),
        ({"limit": 5}, "source"),
    ):
        with pytest.raises(RunError, match=f"unfinished job with other {differs} stands here.*remove the folder"):
            curate(**{"source": rows, "steps": [failing], "out": out, **change})
    Path(rows).write_text(Path(rows).read_text().replace("why 3", "why not"))  # the same place, another source
    with pytest.raises(RunError, match="other source"):
        curate(rows, [failing], out)
    (tmp_path / "double.py").write_text(STEP + "# changed\n")
    with pytest.raises(RunError, match="other source and reads"):
        curate(rows, [failing], out)


def test_a_finished_file_is_left_alone(tmp_path: Path, double: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    made = curate(source(tmp_path), [double + ":Double"], out)
    before = out.stat().st_mtime_ns
    (tmp_path / "out.jsonl.work").mkdir()  # killed while it tidied up
    assert curate(source(tmp_path), [double + ":Double"], out, quiet=False) == made
    assert "is made already" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before
    assert not (tmp_path / "out.jsonl.work").exists()
    with pytest.raises(RunError, match="is there already, made with other seed"):
        curate(source(tmp_path), [double + ":Double"], out, seed=1)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"mine.jsonl: is there already\. Remove it"):
        curate(source(tmp_path), [double + ":Double"], tmp_path / "mine.jsonl")


def test_an_error_names_step_row_and_column(tmp_path: Path, double: str) -> None:
    rows = source(tmp_path)
    for more, said in (
        ("", "Double:fail='why 3', pairs:4: this is no good. Mend."),
        (",where=chosen", "Double:fail='why 3',where=chosen, pairs:4 chosen: this is no good. Mend."),
        (",where=chosen,ahead=true", ",ahead=true, pairs:4 chosen: this is no good."),
    ):
        with pytest.raises(DataError) as caught:
            curate(rows, [f"{double}:Double:fail='why 3'{more}"], tmp_path / f"{len(more)}.jsonl")
        assert said.replace("'", '"') in str(caught.value).replace("'", '"')


def test_what_cannot_be_carried_out(tmp_path: Path, double: str) -> None:
    rows = source(tmp_path)
    with pytest.raises(SpecError, match="no steps"):
        curate(rows, [], tmp_path / "out.jsonl")
    with pytest.raises(SpecError, match=r"no method 'segmnet'.*Did you mean 'segment'"):
        curate(rows, ["segmnet"], tmp_path / "out.jsonl")
    with pytest.raises(GrainlineError, match="answered 1 of 6 rows: a fault of this step"):
        curate(rows, [f"{double}:Double:short=true"], tmp_path / "short.jsonl")
    with pytest.raises(DataError, match=r"no row is left.*says why \(6\)"):
        curate(rows, [f"{double}:Double:drop=why"], tmp_path / "none.jsonl")
    assert curate(rows, ["segment"], tmp_path / "none.jsonl").facts["out"]["rows"] == 6  # nothing is in the way
    with pytest.raises(DataError, match=r"cannot write '.parquet'"):
        curate(rows, ["segment"], tmp_path / "out.parquet")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(Path(rows).read_text() + "[1]\n{\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"2 of 8 rows cannot be used: bad.jsonl:7: the row is not an object.*bad.jsonl:8"
    ):
        curate(bad, ["segment"], tmp_path / "out.jsonl")
    made = curate(bad, ["segment"], tmp_path / "out.jsonl", skip_bad_rows=True)
    assert (made.facts["source"]["rows"], made.facts["source"]["left_out"]) == (6, 2)


def test_a_folder_holds_a_file_for_each_split(tmp_path: Path, double: str) -> None:
    given = [
        {"prompt": f"p{n}", "chosen": "c", "rejected": "r"} | ({"split": "test"} if n % 3 else {}) for n in range(6)
    ]
    made = curate(jsonl(tmp_path / "some.jsonl", given), [double + ":Double"], tmp_path / "splits")
    assert [row["prompt"] for row in lines(tmp_path / "splits" / "train.jsonl")] == ["p0", "p0", "p3", "p3"]
    assert len(lines(tmp_path / "splits" / "test.jsonl")) == 8
    assert made.facts["out"]["test"]["rows"] == 8
    assert json.loads((tmp_path / "splits" / "provenance.json").read_text()) == made.facts
    assert curate(str(tmp_path / "some.jsonl"), [double + ":Double"], tmp_path / "splits") == made
    with pytest.raises(DataError, match="s:1 split: 'a/b' is no name of a split"):
        curate(jsonl(tmp_path / "s.jsonl", [given[0] | {"split": "a/b"}]), [double + ":Double"], tmp_path / "other")


def test_the_cache_makes_a_job_once(tmp_path: Path, double: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"seed": 0, "split": "train", "format": "", "skip_bad_rows": False, "quiet": True}
    first = cached(source(tmp_path), [double + ":Double"], **how)
    assert len(lines(first.path / "train.jsonl")) == 12
    monkeypatch.setattr(curating.journal, "carry", lambda *_, **__: pytest.fail("it was made again"))
    assert cached(source(tmp_path), [double + ":Double"], **how, spend=False) == first


def test_what_takes_a_model_is_not_made_merely_to_look(tmp_path: Path, double: str) -> None:
    (tmp_path / "dear.py").write_text(STEP.replace("frozenset()", 'frozenset({"model"})'), encoding="utf-8")
    with pytest.raises(RunError, match=r"yet to be curated, and .*dear.py:Double may take long.*grainline curate"):
        cached(source(tmp_path), [f"{tmp_path}/dear.py:Double"], spend=False)
    assert cached(source(tmp_path), [double + ":Double"], spend=False).facts["out"]["train"]["rows"] == 12


def test_one_process_at_a_time(tmp_path: Path, double: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).parent / "scripts" / "curated.py"
    rows, out = source(tmp_path, 40), tmp_path / "out.jsonl"
    command = [sys.executable, str(script), rows, str(out), double + ":Double"]
    job = subprocess.Popen(command, env=os.environ | {"SLOW": "0.02"})
    while not (tmp_path / "out.jsonl.work" / "1.jsonl").is_file():
        time.sleep(0.01)
    made = curate(rows, [double + ":Double"], out, quiet=False)
    assert "another process is at work on it" in capsys.readouterr().err
    assert job.wait() == 0
    assert made.facts["out"]["rows"] == 80


def test_characters_that_cannot_be_written_are_spelt(tmp_path: Path, double: str) -> None:
    file = tmp_path / "half.jsonl"
    file.write_text('{"prompt": "\\ud83d", "chosen": "é", "rejected": "r"}\n', encoding="utf-8")
    made = curate(file, [double + ":Double"], tmp_path / "out.jsonl")
    assert lines(made.path)[0]["prompt"] == "\ud83d"
