"""What people get wrong, through the front door: one clear sentence, exit status 2, no traceback, nothing started."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from grainline import cli

ASK = [{"role": "user", "content": "tell me of the sky"}]
GOOD = {"prompt": ASK, "chosen": "glad kind yes", "rejected": "no never bad"}


def lines(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in GOOD.items() if k != key}


SPAN = {"start": 0, "end": 4, "score": 1.0}

DATA: dict[str, tuple[str, str]] = {
    "broken json": (lines(GOOD, '{"prompt": '), "d.jsonl:2"),
    "not an object": (lines([1, 2]), "d.jsonl:1: the row is not an object but a list"),
    "nothing": ("", "d.jsonl: there are no rows"),
    "missing rejected": (lines(GOOD, without("rejected")), "d.jsonl:2"),
    "misspelt column": (lines({"prompt": ASK, "chosen": "glad", "rejectd": "no"}), "rejectd"),
    "empty answer": (lines({**GOOD, "chosen": "  "}), "d.jsonl:1 chosen"),
    "equal answers": (lines({**GOOD, "rejected": GOOD["chosen"]}), "d.jsonl:1"),
    "a number for an answer": (lines({**GOOD, "chosen": 5}), "d.jsonl:1 chosen"),
    "null answer": (lines({**GOOD, "chosen": None}), "d.jsonl:1"),
    "unknown role": (lines({**GOOD, "prompt": [{"role": "usr", "content": "x"}]}), "Did you mean 'user'?"),
    "assistant spoke last": (lines({**GOOD, "prompt": [*ASK, {"role": "assistant", "content": "x"}]}), "d.jsonl:1"),
    "no turn at all": (lines({**GOOD, "prompt": []}), "d.jsonl:1 prompt"),
    "two conversations": (
        lines(
            {"chosen": [*ASK, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}
        ),
        "d.jsonl:1",
    ),
    "label as a number": (lines({"prompt": ASK, "completion": "glad", "label": 1}), "d.jsonl:1 label"),
    "pairs and labels": (lines(GOOD, {"prompt": ASK, "completion": "glad", "label": True}), "d.jsonl:2"),
    "span outside": (lines({**GOOD, "chosen_spans": [{**SPAN, "end": 99}]}), "d.jsonl:1 chosen_spans"),
    "span backwards": (lines({**GOOD, "chosen_spans": [{**SPAN, "start": 4}]}), "d.jsonl:1 chosen_spans"),
    "weight of zero": (lines({**GOOD, "weight": 0}), "d.jsonl:1 weight"),
    "weight not a number": (lines({**GOOD, "weight": "heavy"}), "d.jsonl:1 weight"),
    "margin nan": (lines('{"prompt": "a?", "chosen": " b", "rejected": " c", "margin": NaN}'), "d.jsonl:1 margin"),
    "id twice": (lines({**GOOD, "id": "a"}, {**GOOD, "id": "a"}), "d.jsonl:2 id"),
}

RECIPE: dict[str, tuple[str, str]] = {
    "unknown key": ("model: M\ndata: D\nbatchsize: 4\n", "Did you mean 'batch_size'?"),
    "unknown method": ("model: M\ndata: D\nobjective: dop\n", "Did you mean 'dpo'?"),
    "unknown option": ("model: M\ndata: D\nobjective: dpo:bta=1\n", "Did you mean 'beta'?"),
    "value out of range": ("model: M\ndata: D\nobjective: dpo:beta=-1\n", "got -1"),
    "no model": ("data: D\n", "model is missing"),
    "no data": ("model: M\n", "data is missing"),
    "a word for a number": ("model: M\ndata: D\nsteps: many\n", "steps"),
    "negative steps": ("model: M\ndata: D\nsteps: -3\n", "steps"),
    "key twice": ("model: M\ndata: D\nseed: 1\nseed: 2\n", "line 4"),
    "broken yaml": ("model: [M\ndata: D\n", "r.yaml"),
    "a list": ("- model\n- data\n", "r.yaml"),
    "empty recipe": ("", "r.yaml"),
    "no such data": ("model: M\ndata: nowhere.jsonl\n", "nowhere.jsonl"),
    "no such model": ("model: ./nowhere\ndata: D\n", "nowhere"),
    "no such target": ("model: M\ndata: D\nadapter: lora:targets=[q_prj]\n", "q_proj"),
    "no such schedule": ("model: M\ndata: D\nschedule: liner\n", "schedule"),
    "no such layout": ("model: M\ndata: D\nlayout: forest\n", "layout"),
    "reference off for all weights": ("model: M\ndata: D\nadapter: none\nreference: off\n", "reference"),
    "a reference nobody uses": ("model: M\ndata: D\nobjective: sft\nreference: cache\n", "reference"),
    "dropout in trees": ("model: M\ndata: D\nadapter: lora:dropout=0.1\nlayout: tree\n", "layout"),
}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    err = capsys.readouterr().err
    assert caught.value.code == 2, err
    assert "Traceback" not in err
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return sentence


@pytest.mark.parametrize("case", DATA)
def test_data(case: str, toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = DATA[case]
    (tmp_path / "d.jsonl").write_text(content, encoding="utf-8")
    sentence = refused(
        ["align", f"model={toy.model}", f"data={tmp_path / 'd.jsonl'}", f"out={tmp_path / 'run'}"], capsys
    )
    assert said in sentence
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_gzip(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress(lines(GOOD).encode())
    for name, content in {"plain.jsonl.gz": lines(GOOD).encode(), "cut.jsonl.gz": whole[:-9]}.items():
        (tmp_path / name).write_bytes(content)
        sentence = refused(["align", f"model={toy.model}", f"data={tmp_path / name}", f"out={tmp_path / 'r'}"], capsys)
        assert name in sentence


@pytest.mark.parametrize("case", RECIPE)
def test_recipe(case: str, toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = RECIPE[case]
    (tmp_path / "r.yaml").write_text(content.replace(": M\n", f": {toy.model}\n").replace(": D\n", f": {toy.pairs}\n"))
    sentence = refused(["align", str(tmp_path / "r.yaml"), f"out={tmp_path / 'run'}"], capsys)
    assert said in sentence
    assert not (tmp_path / "run" / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["align", "no.yaml"], "no.yaml"),
        (["evaluate", "nowhere", "--data", "d.jsonl"], "nowhere"),
        (["export", "nowhere", "--to", "x"], "nowhere"),
        (["replay", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["check", "nowhere.jsonl"], "nowhere.jsonl"),
        (["peek", "nowhere.jsonl"], "nowhere.jsonl"),
        (["chat", "nowhere", "--prompt", "x"], "nowhere"),
        (["show", "objective", "dop"], "Did you mean 'dpo'?"),
        (["ls", "objctives"], "Did you mean 'objectives'?"),
    ],
)
def test_commands(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(arguments, capsys)


def test_a_place_that_cannot_be_written(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "run"
    assert "file" in refused(["align", f"model={toy.model}", f"data={toy.pairs}", f"out={place}"], capsys)


def test_a_run_that_cannot_be_repeated_or_talked_to(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in which a run began and never came to its first step; then one that is damaged."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(f"model: {toy.model}\ndata: {toy.pairs}\nout: {run}\n")
    assert "no provenance.json" in refused(["replay", str(run)], capsys)
    assert "no adapter yet" in refused(["chat", str(run), "--prompt", "x"], capsys)
    (run / "provenance.json").write_text('{"model": ')
    assert "provenance.json: unreadable" in refused(["replay", str(run)], capsys)
    (run / "provenance.json").write_text("{}")
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    assert "no step yet" in refused(["replay", str(run)], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
