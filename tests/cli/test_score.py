"""``grainline score``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from _toy import jsonl
from grainline import cli

ROWS = [{"prompt": f"Why {n}?", "chosen": "Because it is. Yes.", "rejected": "No."} for n in range(5)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    return jsonl(tmp_path / "pairs.jsonl", ROWS)


def scored(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["score", *map(str, arguments)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(caught.value.code or 0), said.out, said.err


def test_a_file_and_a_remark(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    status, said, told = scored(
        capsys, data, "--reward", "rules:target=3", "--out", out, "--aspects", "clarity, tone", "--limit", 3
    )
    assert (status, said) == (0, f"{out}\n")
    assert "note: 3 rows read, 3 scored by rules:target=3" in told
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[2]["aspect_names"] == ["clarity", "tone"]
    assert rows[2]["chosen_aspect_scores"] == [[1, 1], [1 / 3, 1 / 3]]
    assert json.loads((tmp_path / "out.provenance.json").read_text())["source"]["rows"] == 3


def test_facts_as_json(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    status, said, told = scored(
        capsys, data, "--reward", "rules", "--out", out, "--by", "answer", "--seed", 3, "--json"
    )
    facts = json.loads(said)
    assert (status, told) == (0, "")
    assert (facts["path"], facts["seed"]) == (str(out), 3)
    assert facts["made"][-1]["made"] == 5
    assert "chosen_segments" not in json.loads(out.read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reward", "rulse"], "no method 'rulse' in rewards/. Did you mean 'rules'?"),
        (["--reward", "rules:targt=3"], "rules has no option 'targt'. Did you mean 'target'?"),
        (["--reward", "head"], "head: no head is named. Write head:path=FOLDER"),
        (["--reward", "rules", "--between", "5"], "'5' are no bounds. Write WORST,BEST, as in -5,5."),
        (["--reward", "rules", "--between=5,-5"], "the worst score is below the best"),
        (["--reward", "rules", "--format", "helpster"], "Did you mean 'helpsteer'?"),
    ],
)
def test_mistakes(
    arguments: list[str], said: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, told = scored(capsys, data, "--out", tmp_path / "out.jsonl", *arguments)
    assert (status, said in told) == (2, True), told
    assert not (tmp_path / "out.jsonl").exists()


def test_marked_rows_ask_for_a_word(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, told = scored(capsys, "house", "--reward", "rules", "--limit", 2, "--out", tmp_path / "out.jsonl")
    assert status == 2
    assert "judged already" in told
    status, said, _ = scored(
        capsys, "house", "--reward", "rules", "--limit", 2, "--replace", "--out", tmp_path / "other.jsonl"
    )
    assert (status, said) == (0, f"{tmp_path / 'other.jsonl'}\n")
