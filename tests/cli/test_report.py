"""``grainline report``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from grainline import cli

if TYPE_CHECKING:
    from grainline.runs import Run


@pytest.fixture
def run(toy_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_run.folder, tmp_path / "first"))


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_a_page_in_the_run_s_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(run) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_several_runs(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(run.parent)
    shutil.copytree(run, "second")
    assert call("first", "second") == 0
    assert Path("report.html").is_file()
    assert call("first", "second", "--out", "new/compare.html") == 0
    assert "Side by side" in Path("new/compare.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out == "report.html\nnew/compare.html\n"


@pytest.mark.parametrize(("format", "begins"), [("md", "# first"), ("card", "---\n")])
def test_text_goes_to_standard_output_or_a_file(
    format: str, begins: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, "--format", format) == 0
    said = capsys.readouterr().out
    assert said.startswith(begins)
    assert said.endswith("\n")
    assert call(run, "--format", format, "--out", run / "x.md") == 0
    assert (run / "x.md").read_text(encoding="utf-8") == said
    assert not (run / "report.html").exists()


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert call(*arguments) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return sentence


def test_what_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: no recipe.yaml here" in refused(capsys, "nowhere")
    assert "Did you mean 'html'?" in refused(capsys, run, "--format", "htm")
    assert "a model card is of one run" in refused(capsys, run, run, "--format", "card")
    assert "a folder is there" in refused(capsys, run, "--out", tmp_path)
    (tmp_path / "file").touch()
    assert "file" in refused(capsys, run, "--out", tmp_path / "file" / "page.html")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": "x"}\n')
    for format in ("html", "md", "card"):
        assert "metrics.jsonl:1: loss is not a number" in refused(capsys, run, "--format", format)
    assert not (run / "report.html").exists()
