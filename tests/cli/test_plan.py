"""``grainline plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy
from grainline import cli
from grainline.cli.plan import flops, seconds, size, split


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["plan", *arguments])
    out, err = capsys.readouterr()
    assert caught.value.code == 0, err
    return out


def words(toy: Toy, **more: Any) -> list[str]:
    choices = {"model": toy.model, "data": toy.pairs, "adapter": "lora:rank=4", "steps": 6, "batch_size": 8} | more
    return [f"{key}={value}" for key, value in choices.items()]


def test_a_table(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    out = planned(capsys, *words(toy))
    assert "4,096 of 43,808 parameters: down 2,048, up 2,048" in out
    assert "16.4 kB on disk" in out
    assert "40, 25 prompts; 0 left out" in out
    assert "6 of 8 rows = 1.2 epochs" in out
    assert "tree; saves 4" in out
    assert "MFLOP" in out
    assert "seconds: --probe" in out


def test_json(toy: Toy, toy_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(planned(capsys, *words(toy), "--json"))
    facts = json.loads((toy_run.folder / "provenance.json").read_text())["run"]
    assert found["trainable"]["total"] == facts["trainable"]
    assert found["steps"]["steps"] == 6
    assert found["probe"] is None


def test_the_tokens_of_a_run(toy: Toy, toy_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A run's own folder is a recipe too; what it logged is what was planned."""
    found = json.loads(planned(capsys, str(toy_run.folder / "recipe.yaml"), "--json"))
    last = [line for line in toy_run.metrics if "num_tokens" in line][-1]
    assert found["steps"]["tokens"] == last["num_tokens"]
    assert found["steps"]["steps"] == 20
    assert json.loads(planned(capsys, str(toy_run.folder), "--json"))["steps"] == found["steps"]


def test_a_probe(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    out = planned(capsys, *words(toy), "--probe")
    assert "tokens a second" in out
    assert "seconds: --probe" not in out
    found = json.loads(planned(capsys, *words(toy), "--probe", "--json"))["probe"]
    assert found["total"] > found["training"] > 0
    assert list(tmp_path.iterdir()) == []  # not even the run's folder


def test_a_table_of_adapters(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = "lora:rank=4,alpha=8,bone:block=8,shira,none"
    out = planned(capsys, *words(toy), "--adapters", wanted)
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert lines["lora:rank=4,alpha=8"][1] == "4,096"
    assert lines["bone:block=8"][1] == f"{2 * 8 * (32 + 16 + 16 + 32 + 64 + 64 + 32):,}"
    assert lines["none"][1] == f"{43_808 - 4_096:,}"  # the model alone
    assert "cannot be counted without weights" in " ".join(lines["shira:"])
    found = json.loads(planned(capsys, *words(toy), "--adapters", wanted, "--json"))
    assert list(found) == ["lora:rank=4,alpha=8", "bone:block=8", "shira", "none"]
    alone = json.loads(planned(capsys, *words(toy, adapter="lora:rank=4,alpha=8"), "--json"))
    assert found["lora:rank=4,alpha=8"]["trainable"] == alone["trainable"]
    assert found["lora:rank=4,alpha=8"]["memory"]["activations"] == alone["memory"]["activations"]


def test_several_processes(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory is that of one; each adapter of a table is planned so as well."""
    shared = [*words(toy, shard="true"), "--processes", "2"]
    out = planned(capsys, *shared)
    for line in ("2 processes", "memory: layers being read", "memory: before weights are shared out"):
        assert line in out
    assert "processes" not in planned(capsys, *words(toy))
    found = json.loads(planned(capsys, *shared, "--json"))
    whole = json.loads(planned(capsys, *words(toy), "--processes", "2", "--json"))
    assert found["processes"] == whole["processes"] == 2
    assert found["memory"]["weights"]["float32"] < 0.8 * whole["memory"]["weights"]["float32"]
    table = json.loads(planned(capsys, *shared, "--adapters", "lora:rank=4,none", "--json"))
    assert table["lora:rank=4"]["memory"]["weights"] == found["memory"]["weights"]
    assert "all weights would train" in table["none"]["refused"]


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--probe", "--processes", "2"], "--probe takes steps in one"), (["--processes", "0"], "or equal to 1")],
)
def test_processes_that_cannot_be_planned(
    more: list[str], said: str, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["plan", *words(toy), *more])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_adapters_are_told_from_options() -> None:
    assert split("lora") == ["lora"]
    assert split("peft:type=OFT,oft_block_size=8, miss,adapter_x") == [
        "peft:type=OFT,oft_block_size=8", "miss", "adapter_x",
    ]  # fmt: skip
    assert split("lora:rank_pattern={q_proj: 2, v_proj: 4},layers=[0, 1],bone") == [
        "lora:rank_pattern={q_proj: 2, v_proj: 4},layers=[0, 1]", "bone",
    ]  # fmt: skip
    assert split("") == []


def test_units() -> None:
    assert [size(n) for n in (0, 999, 1e3, 4.2e9, 5e15)] == ["0 B", "999 B", "1 kB", "4.2 GB", "5e+03 TB"]
    assert [flops(n) for n in (10, 4.76e13)] == ["10 FLOP", "47.6 TFLOP"]
    assert [seconds(n) for n in (0.5, 660, 7200)] == ["0.5 s", "11 min", "2 h"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objective": "dop"}, "Did you mean 'dpo'?"),
        ({"steps": "many"}, "steps"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"model": "./nowhere"}, "no such file or folder"),
        ({"model": "nobody/nothing"}, "nobody/nothing"),
        ({"adapter": "lora:targets=[q_prj]"}, "q_proj"),
        ({"schedule": "liner"}, "schedule"),
        ({"layout": "forest"}, "layout"),
        ({"adapter": "lora:dropout=0.1", "layout": "tree"}, "layout"),
        ({"adapter": "none", "reference": "off"}, "reference"),
        ({"objective": "sft", "reference": "cache"}, "reference"),
        ({"model.device": "abacus"}, "device abacus"),
        ({"shard": "true"}, "plan with --processes 2"),
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [[], ["--probe"]], ids=["", "probe"])
def test_malformed(
    changed: dict[str, str], said: str, more: list[str], toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["plan", *words(toy, **changed), *more])
    err = capsys.readouterr().err
    assert caught.value.code == 2, err
    assert "Traceback" not in err
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said in sentence


def test_curated_rows_are_counted(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert "25, 25 prompts; 0 left out" in planned(capsys, *words(toy, curate="dedupe:by=prompt,threshold=1"))


def test_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["plan", "no.yaml"])
    assert caught.value.code == 2
    assert "no.yaml" in capsys.readouterr().err
