"""Whole or not at all: what is written, what is left, what an interruption leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from grainline import atomic


def test_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with atomic.folder(folder) as made:
        (made / "old").touch()
    with pytest.raises(FileNotFoundError), atomic.folder(folder) as made:
        (made / "absent" / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["old"]
    with atomic.folder(folder) as made:
        (made / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "kept.txt"
    atomic.text(file, "old")
    with pytest.raises(FileNotFoundError), atomic.file(file) as made:
        made.with_name("absent").read_text()
    assert file.read_text() == "old"
    atomic.text(file, "new")
    assert file.read_text() == "new"
    assert [path.name for path in file.parent.iterdir()] == ["kept.txt"]
