"""``grainline schema``."""

from __future__ import annotations

import json

import pytest

from grainline import cli, recipe


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["schema"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(recipe.schema()))
