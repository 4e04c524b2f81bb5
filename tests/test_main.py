"""``python -m grainline`` is the command line."""

from __future__ import annotations

import runpy
import sys

import pytest


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["grainline", "ls", "objectives"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("grainline", run_name="__main__")
    assert not caught.value.code
    assert "dpo" in capsys.readouterr().out
