"""examples/own_loop.py runs as it stands, learns, and stays short."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "examples" / "own_loop.py"


def test_own_loop(one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    found = runpy.run_path(str(FILE), run_name="__main__")
    assert found["losses"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert found["losses"][-1] < 0.3
    assert found["margins"].keys() == {"sky", "grass", "sea"}
    assert min(found["margins"].values()) > 1
    assert capsys.readouterr().out.startswith("loss 0.6931 -> 0.")


def test_its_loop_is_fifteen_lines() -> None:
    text = FILE.read_text(encoding="utf-8")
    loop = text[text.index("scorer = Scorer") : text.index("margins = ")].strip().splitlines()
    assert len(loop) <= 15
