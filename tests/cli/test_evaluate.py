"""``grainline evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grainline import cli
from grainline.recipe import HeldOutChoice


@pytest.mark.parametrize(
    ("arguments", "name", "choice"),
    [
        (["--data", "x/test.jsonl"], "test", {"path": "x/test.jsonl"}),
        (["--data", "org/set", "--split", "test"], "set", {"path": "org/set", "split": "test"}),
        (["--data", "x.jsonl", "--name", "hard"], "hard", {"path": "x.jsonl"}),
        (["--data", "~/x.jsonl"], "x", {"path": str(Path.home() / "x.jsonl")}),
    ],
)
def test_data_and_its_name(
    arguments: list[str], name: str, choice: dict[str, str], align: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "runs/x", *arguments, "--json"])
    assert align.asked == [(Path("runs/x"), {name: HeldOutChoice(**choice)})]  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out) == {name: {"loss": 0.5}}


def test_a_table(align: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "runs/x", "--data", "t.jsonl"])
    out = capsys.readouterr().out
    assert out.startswith("t\n")
    assert ["loss", "0.5"] in [line.split() for line in out.splitlines()]


def test_how_to_measure(align: Any) -> None:
    words = [
        "--measure",
        "geometry,preference",
        "--generate",
        "4",
        "--judge",
        "x.py:X",
        "--against",
        "runs/y",
        "seed=3",
    ]
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "runs/x", "--data", "t.jsonl", *words, "temperature=0.5"])
    assert ended.value.code == 0
    measures = {"families": ["geometry", "preference"], "generate": 4, "judge": "x.py:X", "seed": 3, "temperature": 0.5}
    assert align.asked == [(Path("runs/x"), {"t": HeldOutChoice(path="t.jsonl")}, "runs/y", measures)]


def test_all_asks_for_what_needs_no_option(align: Any) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "runs/x", "--data", "t.jsonl", "--measure", "all"])
    families = ["preference", "displacement", "generation", "geometry", "forgetting", "masks"]
    assert align.asked[0][-1] == {"families": families}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs/x", "--data", "t", "generat=3"], "no option 'generat'"),
        (["runs/x", "--data", "t", "--measure", "geometri"], "'geometry'"),
        (["runs/x", "--data", "t", "--out", "y"], "a run keeps its results itself"),
        (["some/model", "--data", "t", "--against", "y"], "a model alone is compared with nobody"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(
    words: list[str], said: str, align: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert align.asked == []


def test_a_model_alone(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", toy.model, "--data", toy.held_out, "--out", str(tmp_path), "--json"])
    assert ended.value.code == 0
    assert 0 <= json.loads(capsys.readouterr().out)["test"]["likelihood/accuracies"] <= 1
    assert (tmp_path / "evaluation" / "test" / "facts.json").is_file()
