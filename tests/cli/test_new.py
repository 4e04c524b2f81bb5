"""``grainline new``: three files, a skeleton that works as a method, and a test that fails until it is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from grainline import cli, rooms
from grainline.cli.new import checkout, module_name
from grainline.errors import SpecError, UserError
from grainline.optimizers._parts import by_role
from grainline.types import Tagged


def new(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["new", *arguments])
    return int(caught.value.code or 0)


@pytest.mark.parametrize("room", ["supervision", "objective", "adapter", "optimizer"])
def test_three_files_and_a_skeleton_that_is_a_method(
    room: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(room, "quite-new", "--dir", str(tmp_path)) == 0
    folder = room if room == "supervision" else f"{room}s"
    source, test, page = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert source == tmp_path / "src" / "grainline" / folder / "quite_new.py"
    assert test == tmp_path / "tests" / folder / "test_quite_new.py"
    assert page == tmp_path / "docs" / folder / "quite-new.md"
    value = rooms.parse(folder, str(source))
    assert rooms.parse(folder, rooms.text(value)) == value
    assert type(value).__name__ == "QuiteNew"
    assert f"{room}=quite-new" in page.read_text()
    for path in (source, test, page):
        assert not [word for word in ("NAME", "CLASS", "ROOM") if word in path.read_text()]
        assert "\\\\" not in path.read_text()
    with pytest.raises(NotImplementedError, match="quite-new"):
        value.config(None) if room == "adapter" else value(*[None] * {"objective": 4}.get(room, 1))


def test_a_new_optimizer_has_a_rate_for_each_role(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new("optimizer", "quite-new", "--dir", str(tmp_path)) == 0
    spec = rooms.parse("optimizers", f"{capsys.readouterr().out.splitlines()[0]}:lr=0.1,lr.up=0.5,lr_scale.down=2")
    matrices = [Tagged(role, torch.nn.Parameter(torch.zeros(2, 2)), role) for role in ("down", "other", "up")]
    assert [group["lr"] for group in by_role(matrices, spec)] == [0.2, 0.1, 0.5]


def test_the_skeletons_test_fails_until_its_golden_is_written(tmp_path: Path) -> None:
    assert new("objective", "quite-new", "--dir", str(tmp_path)) == 0
    test = tmp_path / "tests" / "objectives" / "test_quite_new.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{test}::test_golden"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "write the golden" in done.stdout


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "docs" / "objectives" / "quite-new.md"
    page.parent.mkdir(parents=True)
    page.write_text("mine")
    assert new("objective", "quite-new", "--dir", str(tmp_path)) == 2
    assert f"{page}: exists already. Nothing was written." in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [page]
    assert page.read_text() == "mine"


@pytest.mark.parametrize(("name", "module"), [("dpo", "dpo"), ("margin-dpo", "margin_dpo"), ("a1", "a1")])
def test_module_name(name: str, module: str) -> None:
    assert module_name(name) == module


@pytest.mark.parametrize("name", ["", "2d", "Dpo", "a_b", "a b", "../a", "class", "x-torch", "-a", "_a"])
def test_names_that_no_module_can_have(name: str) -> None:
    with pytest.raises(SpecError):
        module_name(name)


def test_a_name_with_a_digit_is_told_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert new("objective", "2d-dpo-x") == 2
    assert 'Spell it (two-d-dpo-x), then write name = "2d-dpo-x"' in capsys.readouterr().err


def test_the_checkout_is_found_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grainline

    monkeypatch.setattr(grainline, "__file__", str(tmp_path / "site-packages" / "grainline" / "__init__.py"))
    with pytest.raises(UserError, match="Say where with --dir"):
        checkout()
