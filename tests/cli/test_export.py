"""``grainline export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grainline import cli


@pytest.mark.parametrize(
    ("options", "format", "rank"),
    [([], "peft", None), (["--format", "merged"], "merged", None), (["--format", "lora", "--rank", "8"], "lora", 8)],
)
def test_what_is_written_is_said(
    options: list[str], format: str, rank: int | None, align: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export", "runs/x", "--to", "there", *options])
    assert align.asked == [(Path("runs/x"), "there", format, rank)]
    assert capsys.readouterr().out == "path: there\ndifference: 0.0001235\n"


def test_json(align: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export", "runs/x", "--to", "there", "--json"])
    assert json.loads(capsys.readouterr().out)["path"] == "there"


def test_push_to_hub_sends_what_was_written(
    align: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(
        "grainline.publish.publish", lambda folder, name: sent.append((folder, name)) or "https://hub/me/mine"
    )
    with pytest.raises(SystemExit):
        cli.main(["export", "runs/x", "--to", "there", "--push-to-hub", "me/mine"])
    assert sent == [("there", "me/mine")]
    assert "hub: https://hub/me/mine" in capsys.readouterr().out
