"""``grainline reward``: its two commands on a small world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy, jsonl
from _toy import marked as marked_rows
from grainline import cli


@pytest.fixture
def marked(toy: Toy, tmp_path: Path) -> str:
    return jsonl(tmp_path / "marked.jsonl", marked_rows(40))


def ran(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["reward", *map(str, arguments)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(caught.value.code or 0), said.out, said.err


def test_taught_then_measured(toy: Toy, marked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = tmp_path / "head"
    status, said, told = ran(
        capsys,
        "train",
        marked,
        "--model",
        toy.model,
        "--out",
        head,
        "--members",
        2,
        "--layers",
        "0.5,1",
        "--pool",
        "mean",
    )
    assert status == 0, told
    assert "tone/auc" in said
    assert "pieces of" in said
    facts = json.loads((head / "head.json").read_text())
    assert (facts["layers"], facts["pool"], facts["members"]) == ([0.5, 1.0], "mean", 2)
    status, said, told = ran(capsys, "evaluate", f"head:path={head}", "--data", marked)
    assert status == 0, told
    assert "tone/calibration" in said
    assert "people said" in said


def test_both_as_json(toy: Toy, marked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--loss",
        "squares",
        "--unmarked",
        "right",
        "--aspects",
        "tone",
        "--members",
        3,
        "--seed",
        2,
        "--pool",
        "mean",
    )
    status, said, told = ran(
        capsys, "train", marked, "--model", toy.model, "--out", tmp_path / "h", "--json", "--limit", 30, *options
    )
    facts = json.loads(said)
    assert (status, facts["loss"], facts["unmarked"], facts["seed"]) == (0, "squares", "right", 2), told
    assert facts["data"]["rows"] == 30
    status, said, _ = ran(capsys, "evaluate", f"head:path={tmp_path / 'h'}", "--data", marked, "--json")
    found = json.loads(said)
    assert found["metrics"]["tone/auc"] > 0.8
    assert {"from", "to", "pieces", "said", "right"} == set(found["reliability"]["tone"][0])


def test_pairs_need_no_span(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said, told = ran(
        capsys,
        "train",
        toy.pairs,
        "--model",
        toy.model,
        "--out",
        tmp_path / "h",
        "--members",
        2,
        "--learn",
        "pairs",
        "--pool",
        "mean",
    )
    assert status == 0, told
    assert "pairs/accuracies" in said
    status, said, told = ran(capsys, "evaluate", "rules:better=longer,target=50", "--data", toy.held_out)
    assert (status, "pairs/accuracies" in said) == (0, True), told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--layers", "2"], "'2' are no shares of the depth"),
        (["--layers", "half"], "Write 0.5, or 0.5,1."),
        (["--learning", "backprob"], "Did you mean 'backprop'"),
        (["--aspects", "tune"], "Did you mean 'tone'"),
        (["--model", "./nowhere"], "no such file or folder"),
    ],
)
def test_mistakes(
    arguments: list[str], said: str, toy: Toy, marked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, told = ran(capsys, "train", marked, "--model", toy.model, "--out", tmp_path / "h", *arguments)
    assert (status, said in told) == (2, True), told
    assert not (tmp_path / "h").exists()


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, said, told = ran(capsys)
    assert "train" in said + told
    assert "evaluate" in said + told


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_each_command_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = ran(capsys, command, "--help")
    assert status == 0
    assert f"grainline reward {command}" in said.split("Examples:")[1]
