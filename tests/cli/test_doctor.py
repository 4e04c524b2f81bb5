"""``grainline doctor``: a line for each finding, and an exit status for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grainline import cli, doctor, machine

FOUND = [
    doctor.Finding("threads", "ok", "2 threads"),
    doctor.Finding("bitsandbytes", "missing", "for 4 bits", "pip install bitsandbytes"),
]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", *arguments])
    return int(caught.value.code or 0)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[doctor.Finding]:
    made = list(FOUND)
    monkeypatch.setattr(doctor, "examine", lambda: made)
    return made


def test_lines(found: list[doctor.Finding], capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok       threads       2 threads",
        "missing  bitsandbytes  for 4 bits",
        "                       -> pip install bitsandbytes",
        "1 ok, 1 missing",
    ]


def test_a_fault_is_exit_status_1(found: list[doctor.Finding], capsys: pytest.CaptureFixture[str]) -> None:
    found.append(doctor.Finding("torch", "fault", "cannot be imported", "Install it again"))
    assert call("--bench", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["findings"][-1]["verdict"] == "fault"
    assert said["rates"] == {}


def test_bench(
    found: list[doctor.Finding], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("linear", "attention", "step")
    rates = {f"{kind} {dtype}": rate for kind in kinds for dtype, rate in (("float32", 50.0), ("bfloat16", 155.0))}
    monkeypatch.setattr(machine, "measure", lambda device: rates)
    assert call("--bench") == 0
    assert "bfloat16 is 3.1x float32 here" in capsys.readouterr().out


def test_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path))
    assert call("--json") == 0
    verdicts = {finding["verdict"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert verdicts <= {"ok", "slow", "missing"}
