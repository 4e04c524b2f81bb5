"""A run in a notebook's cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from _runs import NASTY, Make, nasty
from grainline.errors import RunError
from grainline.report import headline, notebook, read


def test_the_verdict_and_what_next(make: Make) -> None:
    folder = make()
    html = notebook.card(folder)
    assert headline.one(read.run(folder)).sentence in html
    assert "<code>grainline export" in html
    assert "dpo:beta=0.2 + 0.1*sft" in html


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    html = notebook.card(nasty(tmp_path, "<img src=x onerror=alert(1)>"))
    assert "<img" not in html
    assert "&lt;img" in html
    assert "<script" not in notebook.table({NASTY: NASTY})


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        notebook.card(tmp_path)
