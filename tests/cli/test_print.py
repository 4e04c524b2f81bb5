"""Printing: tables without markup and without trailing blanks, numbers of four digits."""

from __future__ import annotations

import json

import pytest

from grainline.cli import _print


def test_a_table_shows_its_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    _print.table(("a", "b"), [("[bold]x[/bold]", "1"), ("y", "")], title="rooms")
    out, err = capsys.readouterr()
    assert "[bold]x[/bold]" in out
    assert out.startswith("rooms\n")
    assert not [line for line in out.splitlines() if line != line.rstrip()]
    assert err == ""


def test_remarks_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    _print.note("hear this")
    assert capsys.readouterr() == ("", "note: hear this\n")


def test_json_keeps_letters_and_writes_paths(capsys: pytest.CaptureFixture[str]) -> None:
    from pathlib import Path

    _print.as_json({"name": "größer", "path": Path("a/b")})
    assert json.loads(capsys.readouterr().out) == {"name": "größer", "path": "a/b"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (12345.6, "1.235e+04"), (3, "3"), (True, "True"), ("x", "x"), (None, "None")],
)
def test_number(value: object, text: str) -> None:
    assert _print.number(value) == text


def test_metrics_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    _print.metrics({"loss": 0.6931471, "step": 3}, title="t")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["loss", "0.6931"] in lines
    assert ["step", "3"] in lines


def test_metrics_with_intervals_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    after = {"x/accuracies": 0.61, "x/accuracies_low": 0.57, "x/accuracies_high": 0.65, "loss": 0.5, "so_low": 1}
    _print.metrics(after, before={"step": 0, "x/accuracies": 0.5, "x/accuracies_low": 0.5, "x/accuracies_high": 0.5})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["x/accuracies", "0.5", "[0.5,", "0.5]", "0.61", "[0.57,", "0.65]"] in lines
    assert ["loss", "0.5"] in lines
    assert ["so_low", "1"] in lines  # no interval's end: there is no "so"
    assert not [line for line in lines if line[:1] == ["x/accuracies_low"]]
