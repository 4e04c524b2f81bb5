"""The README is true: its Python runs, its commands run, and what it lists is what there is."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy
from grainline import cli, rooms
from grainline.recipe import presets

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language; "" for those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for named, text in found if named == language]


@pytest.fixture
def folder(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place that holds what the README speaks of: pairs, a recipe, and (under its alias) a model."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(toy.pairs, "pairs.jsonl")
    for name in ("test.jsonl", "other.jsonl"):
        shutil.copy(toy.held_out, name)
    Path("recipe.yaml").write_text(
        f"model: {toy.model}\ndata: pairs.jsonl\nevaluation: {{data: test.jsonl}}\nsteps: 2\nbatch_size: 4\n"
    )
    return tmp_path


def test_python(folder: Path, toy: Toy) -> None:
    (program,) = blocks("python")
    short = program.replace("smollm2-135m-instruct", toy.model).replace("steps=60", "steps=2, progress=False")
    names: dict[str, Any] = {}
    exec(compile(short, "README.md", "exec"), names)
    assert names["run"].summary()["step"] == 2
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


def test_commands(folder: Path, toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in blocks("") if "grainline ls objectives" in block]
    commands = [re.split(r"\s{3,}| > ", line)[0] for line in block.splitlines()]
    assert len(commands) >= 7
    for command in commands:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "new":
            arguments += ["--dir", str(folder)]
        if arguments[0] == "chat":
            arguments += ["--prompt", "tell me of the sea", "--max-new-tokens", "4"]
        if arguments[0] == "peek":
            arguments += ["--model", toy.model]
        arguments = [toy.model if argument == "smollm2-135m-instruct" else argument for argument in arguments]
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert not caught.value.code, f"{command}: {capsys.readouterr().err}"


def test_every_method_is_listed_and_every_listed_one_is_there() -> None:
    listed = dict(
        re.findall(
            r"^\| (supervision|objectives|adapters|optimizers|rewards|curation|presets) \| (.*) \|$",
            README,
            re.MULTILINE,
        )
    )
    for room in rooms.FOLDERS:
        assert set(rooms.names(room)) <= set(re.findall(r"`([\w-]+)`", listed[room])), room
    assert set(re.findall(r"`([\w-]+)`", listed["presets"])) == set(presets())


def test_every_file_it_names_is_there() -> None:
    root = Path(__file__).parents[1]
    for name in re.findall(r"\]\(([^):]+)\)", README) + re.findall(r"recipes/[\w.-]+\.yaml", README):
        assert (root / name).exists(), name
    with contextlib.suppress(IndexError):
        for line in re.findall(r"^  (\S+?\.py) ", blocks("")[-1], re.MULTILINE):
            assert (root / "src" / "grainline" / line).exists(), line
