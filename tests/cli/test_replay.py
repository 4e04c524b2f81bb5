"""``grainline replay``: what is said of equal and of other numbers, and the exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from grainline import cli, replay

if TYPE_CHECKING:
    from _toy import Toy
    from grainline.runs import Run


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["replay", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_equal(toy: Toy, toy_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(toy_run.folder, "--out", tmp_path / "again", "--steps", 2) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("bitwise equal: ")
    assert said[0].endswith(" numbers of 2 steps")
    assert said[1:] == [f"replay: {tmp_path / 'again'}"]


def test_the_new_folder_stands_beside_the_run(
    toy: Toy, toy_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(toy_run.folder, tmp_path / "first")
    assert call(tmp_path / "first", "--steps", 1, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path / "first-replay")
    assert (found["verdict"], found["steps"], found["differences"]) == ("bitwise equal", 1, {})


def test_different(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    compared = replay.compare({1: {"loss": 0.5, "norm": 1.0}}, {1: {"loss": 0.75, "norm": float("nan")}})
    made = replay.Replay(Path("new"), compared, {"machine.threads": (1, 2)})
    monkeypatch.setattr(replay, "replay", lambda folder, out, steps: made)
    assert call("runs/x") == 1
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["loss", "2.5e-01", "1", "0.5", "0.75"] in said
    assert ["machine.threads", "1", "2"] in said
    assert ["different:", "2", "numbers", "of", "1", "steps"] in said
    assert call("runs/x", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["differences"]["loss"] == {"largest": 0.25, "step": 1, "run": 0.5, "replay": 0.75}
    assert found["differences"]["norm"]["replay"] == "nan"
    assert found["provenance"] == {"machine.threads": {"run": 1, "replay": 2}}
