"""What is put on the shelf comes back, from any process; what is damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from grainline.errors import RunError
from grainline.shelf import Shelf

ONE, TWO, THREE = ("ab" * 32, "cd" * 32, "ef" * 32)


def test_rows_come_back_by_their_address(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    assert ONE not in shelf
    shelf.add({ONE: torch.arange(6.0).reshape(2, 3), TWO: torch.zeros(0, 3)})
    shelf.add({THREE: torch.ones(1, 3)})
    for one in (shelf, Shelf(tmp_path)):
        assert torch.equal(one[ONE], torch.arange(6.0).reshape(2, 3))
        assert one[TWO].shape == (0, 3)
        assert torch.equal(one[THREE], torch.ones(1, 3))
    assert len(list(tmp_path.iterdir())) == 2


def test_without_a_folder_rows_are_held(tmp_path: Path) -> None:
    shelf = Shelf(None)
    shelf.add({ONE: torch.ones(1, 2)})
    assert ONE in shelf
    assert torch.equal(shelf[ONE], torch.ones(1, 2))


def test_a_file_is_named_by_what_it_holds(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        Shelf(tmp_path / folder).add({ONE: torch.ones(1, 2), TWO: torch.ones(2, 2)})
    (first,), (second,) = (list((tmp_path / folder).iterdir()) for folder in ("a", "b"))
    assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    Shelf(tmp_path).add({ONE: torch.ones(2, 3)})
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunError, match=r"safetensors: unreadable: .* Delete it"):
        Shelf(tmp_path)
