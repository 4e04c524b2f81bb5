"""What was paid for is there again, whatever byte the job was killed at."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grainline.ledger import Ledger, address


def test_a_second_job_finds_what_the_first_kept(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "kept.jsonl"
    assert Ledger(file).get("a") is None
    assert not file.exists()  # nothing is made before there is something to keep
    first = Ledger(file)
    first.add("a", {"text": "two\nlines \u2028 and é"})
    first.add("b", {"text": None})
    second = Ledger(file)
    assert [second.get(key) for key in "abc"] == [{"text": "two\nlines \u2028 and é"}, {"text": None}, None]


def test_a_line_torn_at_any_byte_costs_that_line_alone(tmp_path: Path) -> None:
    whole = Ledger(tmp_path / "whole")
    whole.add("a", {"text": "first"})
    start = (tmp_path / "whole").stat().st_size
    whole.add("b", {"text": "second é"})
    content = (tmp_path / "whole").read_bytes()
    for cut in range(start + 1, len(content)):
        file = tmp_path / f"cut-{cut}"
        file.write_bytes(content[:cut])
        Ledger(file).add("c", {"text": "third"})
        read = Ledger(file)
        assert (read.get("a"), read.get("c")) == ({"text": "first"}, {"text": "third"})
        assert read.get("b") in (None, {"text": "second é"})  # whole but for its newline: it is known
    assert read.get("b") == {"text": "second é"}


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "kept"), Ledger(tmp_path / "kept")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledgers[n % 2].add(str(n), {"text": "x" * 3000}), range(200)))
    read = Ledger(tmp_path / "kept")
    assert all(read.get(str(n)) == {"text": "x" * 3000} for n in range(200))


def test_a_killed_process_leaves_what_it_kept(tmp_path: Path) -> None:
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from grainline.ledger import Ledger
        Ledger(Path({str(tmp_path / "kept")!r})).add("a", {{"n": 1}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert Ledger(tmp_path / "kept").get("a") == {"n": 1}


def test_a_full_disk_is_an_error_and_spoils_no_later_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, line: bytes) -> int:
            return self.file.write(line[:5])

    ledger = Ledger(tmp_path / "kept")
    with monkeypatch.context() as patch:
        real = Path.open
        patch.setattr(Path, "open", lambda *args, **options: Full(real(*args, **options)))
        with pytest.raises(OSError, match="cut short"):
            ledger.add("a", {"n": 1})
    assert ledger.get("a") is None
    ledger.add("b", {"n": 2})
    assert Ledger(tmp_path / "kept").get("b") == {"n": 2}


def test_an_address_depends_on_every_part_and_on_no_order_of_keys() -> None:
    assert address("a", {"x": 1, "y": 2}) == address("a", {"y": 2, "x": 1})
    assert len({address("a", "b"), address("ab"), address("a", {"b": None}), address(["a", "b"])}) == 4
