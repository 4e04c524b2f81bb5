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
