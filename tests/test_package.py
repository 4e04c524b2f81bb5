"""What a user installs: the wheel holds every source file and preset, and works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("package")  # one worker builds, once

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, **variables: str) -> str:
    said = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=os.environ | variables, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout.strip()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that is built from it."""
    for tool in ("build", "hatchling"):
        pytest.importorskip(tool, reason="needs the extra [check]; run `make setup`")
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("grainline-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel, and nothing else, is installed."""
    folder = tmp_path_factory.mktemp("site")
    run("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, wheel)
    return folder


def test_the_wheel_holds_every_source_file_and_preset(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    expected = {str(path.relative_to(source)) for end in ("*.py", "*.yaml") for path in source.rglob(end)}
    assert expected
    assert expected - inside == set()
    assert not [name for name in inside if not name.startswith(("grainline/", "grainline-"))]


def test_the_source_distribution_can_be_tested(dist: Path) -> None:
    """It holds the tests, their golden figures, the pages, and what `make` needs."""
    with tarfile.open(next(dist.glob("grainline-*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"Makefile", "constraints.txt", "LICENSE", "README.md", "CHANGELOG.md", "tests/golden/objectives.json"}
    assert wanted - inside == set()


def test_an_installed_wheel_finds_its_methods(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry is a folder: it must be one after installation too, with the checkout nowhere on the path."""
    code = """if True:
        import sys
        sys.path = [entry for entry in sys.path if entry.rstrip("/") != sys.argv[1]]
        import grainline
        from grainline import rooms
        print(grainline.__file__)
        for room in rooms.FOLDERS:
            for name in rooms.names(room):
                rooms.text(rooms.load(room, name)())
                print(room, name)
    """
    monkeypatch.chdir(tmp_path)
    lines = run("-c", code, ROOT / "src", PYTHONPATH=str(installed)).splitlines()
    assert Path(lines[0]).is_relative_to(installed)
    assert {"objectives dpo", "objectives sft", "supervision sequence"} <= set(lines[1:])
    from grainline import rooms

    assert lines[1:] == [f"{room} {name}" for room in rooms.FOLDERS for name in rooms.names(room)]
