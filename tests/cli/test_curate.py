"""``grainline curate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grainline import cli

ROWS = [{"prompt": f"Why {n}?", "chosen": "Because. Yes.", "rejected": "No. Never."} for n in range(5)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(file)


def curated(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["curate", *map(str, arguments)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(caught.value.code or 0), said.out, said.err


def test_a_chain_of_steps(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    status, said, _ = curated(capsys, "segment", "filter:shortest=1", "--data", data, "--out", out, "--limit", 3)
    assert status == 0
    assert "filter:shortest=1" in said
    assert str(out) in said
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["pairs:1", "pairs:2", "pairs:3"]
    assert [line["step"] for line in rows[0]["curation"]] == ["segment"]  # a filter changes no row


def test_json_holds_the_facts(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    status, said, err = curated(capsys, "segment", "--data", data, "--out", out, "--seed", 3, "--json")
    assert (status, err) == (0, "")
    (facts,) = json.loads(said)
    assert facts == {"path": str(out)} | json.loads((tmp_path / "out.provenance.json").read_text())
    assert facts["seed"] == 3


def test_formats_splits_and_bad_rows(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("helpfulness", "correctness", "coherence")
    native = [{"prompt": f"p{n // 2}", "response": f"r{n}", **dict.fromkeys(names, n % 2)} for n in range(4)]
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "spare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in native) + "{\n")
    words = ["segment", "--data", tmp_path / "parts", "--split", "spare", "--format", "helpsteer", "--out"]
    status, _, err = curated(capsys, *words, tmp_path / "o.jsonl")
    assert status == 2
    assert "1 of 3 rows cannot be used: spare.jsonl:5: broken JSON" in err
    status, said, _ = curated(capsys, *words, tmp_path / "o.jsonl", "--skip-bad-rows")
    assert status == 0
    assert "unusable 1" in said


def test_a_recipes_steps(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: m\ndata: {data}\nseed: 4\ncurate:\n- segment\n- {{name: segment, shortest: 9}}\n")
    status, said, _ = curated(capsys, "--recipe", recipe, "--json")
    assert status == 0
    (kept,) = json.loads(said)
    assert Path(kept["path"]).is_relative_to(tmp_path / "cache")
    assert (kept["seed"], kept["steps"]) == (4, ["segment", "segment:shortest=9"])
    status, _, _ = curated(capsys, "--recipe", recipe, "--out", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (Path(kept["path"]) / "train.jsonl").read_bytes()
    recipe.write_text(f"model: m\ndata: [{data}, {data}]\ncurate: segment\n")
    assert "several sources" in curated(capsys, "--recipe", recipe, "--out", tmp_path / "two.jsonl")[2]
    recipe.write_text(f"model: m\ndata: {data}\n")
    assert "there are no steps" in curated(capsys, "--recipe", recipe)[2]


def test_what_is_missing_is_said(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["segment", "--out", "o.jsonl"], "--data is missing"),
        (["segment", "--data", data], "--out is missing"),
        (["--data", data, "--out", tmp_path / "o.jsonl"], "there are no steps"),
        (["segment", "--recipe", "r.yaml", "--out", "o.jsonl"], "--recipe says which steps"),
        (["dedup", "--data", data, "--out", tmp_path / "o.jsonl"], "no method 'dedup' in curation"),
        (["segment:by=x", "--data", data, "--out", tmp_path / "o.jsonl"], "segment has no option 'by'"),
    ):
        status, _, err = curated(capsys, *words)
        assert (status, said in err) == (2, True), err
