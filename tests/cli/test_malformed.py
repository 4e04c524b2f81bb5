"""What people get wrong, through the front door: one clear sentence, exit status 2, no traceback, nothing started."""

from __future__ import annotations

import gzip
import json
import shutil
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
    "half a character": (
        '{"prompt": "a", "chosen": " b \\ud800", "rejected": " c"}\n',
        "d.jsonl:1 chosen: '\\ud800' at",
    ),
    "half a character in a turn": (
        '{"prompt": [{"role": "system", "content": "\\udfff"}, {"role": "user", "content": "a"}], "chosen": "b", '
        '"rejected": "c"}\n',
        "is half a character",
    ),
    "endless nesting": ("[" * 10**5 + "\n", "d.jsonl:1: unreadable JSON"),
    "a number without end": (f'{{"prompt": "a", "chosen": " b", "margin": {"9" * 5000}}}\n', "d.jsonl:1: unreadable"),
    "null bytes": ("\0\0\0\n", "d.jsonl:1: broken JSON"),
    "role as a list": (lines({**GOOD, "prompt": [{"role": ["user"], "content": "x"}]}), "d.jsonl:1 prompt[0]: unknown"),
    "an image": (lines({**GOOD, "prompt": [{"role": "user", "content": [{"type": "image"}]}]}), "only text"),
    "spans as text": (lines({**GOOD, "chosen_spans": "[1"}), "d.jsonl:1 chosen_spans: broken JSON"),
    "score as text": (lines({**GOOD, "chosen_spans": [{**SPAN, "score": "high"}]}), "d.jsonl:1 chosen_spans[0] score"),
    "steps without labels": (lines({"prompt": "a", "completions": ["b", "c"], "labels": [True]}), "same length"),
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
    "no target": ("model: M\ndata: D\nadapter: lora:targets=[]\n", "no module is named"),
    "a seed beyond all": (f"model: M\ndata: D\nseed: {10**30}\n", "seed should be less than"),
    "code in YAML": ("model: !!python/object/apply:os.system [ls]\ndata: D\n", "r.yaml"),
    "two documents": ("model: M\n---\ndata: D\n", "r.yaml"),
    "a date for data": ("model: M\ndata: 2026-11-25\n", "data"),
    "an empty list of data": ("model: M\ndata: []\n", "data"),
    "a number for an objective": ("model: M\ndata: D\nobjective: 3\n", "objective"),
    "no such metric": (
        "model: M\ndata: D\nsteps: 1\nevaluation: {best: eval_test_rewards/acuracies, data: {test: T}}\n",
        "Did you mean 'eval_test_rewards/accuracies'?",
    ),
    "no such tracker": ("model: M\ndata: D\ntrackers: [wandbb]\n", "Did you mean 'wandb'?"),
    "no such device": ("model: M\ndata: D\nmodel.device: tpu\n", "device"),
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


@pytest.mark.parametrize("case", DATA)
def test_data_is_checked_before(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check refuses what align would refuse."""
    (tmp_path / "d.jsonl").write_text(DATA[case][0], encoding="utf-8")
    assert refused(["check", str(tmp_path / "d.jsonl"), "--json"], capsys)


def test_a_file_that_is_not_gzip(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress(lines(GOOD).encode())
    for name, content in {"plain.jsonl.gz": lines(GOOD).encode(), "cut.jsonl.gz": whole[:-9]}.items():
        (tmp_path / name).write_bytes(content)
        sentence = refused(["align", f"model={toy.model}", f"data={tmp_path / name}", f"out={tmp_path / 'r'}"], capsys)
        assert name in sentence


@pytest.mark.parametrize("case", RECIPE)
def test_recipe(case: str, toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = RECIPE[case]
    for mark, place in {": M\n": toy.model, ": D\n": toy.pairs, ": T}": toy.held_out}.items():
        content = content.replace(mark, f": {place}{mark[3:]}")
    (tmp_path / "r.yaml").write_text(content)
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
        (["show", "objective", "./dpo"], "no module"),
        (["show", "preset", "dorra"], "Did you mean 'dora'?"),
        (["new", "rooms", "x"], "no room 'rooms'"),
        (["new", "objectives", "../x"], "cannot be a method's name"),
        (["plan", "no.yaml"], "no.yaml"),
        (["plan", "model=m"], "data is missing"),
        (["plan", "model=m", "data=d", "steps=0"], "steps should be greater"),
        (["check", "~nobody-is-called-so/d.jsonl"], "no such file"),
        (["check", "house", "--format", "helpster"], "Did you mean 'helpsteer'?"),
        (["check", "house", "--split", "tset"], "Did you mean 'test'?"),
        (["peek", "house", "--supervision", "segmnts"], "Did you mean 'segments'?"),
        (["align", "model=m", "data=d", "seed=-1"], "seed"),
        (["align", "nowhere", "--resume"], "nowhere"),
        (["evaluate", ".", "--data", "house"], "not a run"),
        (["chat", ".", "--prompt", "x"], "not a run"),
        (["export", ".", "--to", "x", "--format", "gguf"], "no format 'gguf'"),
        (["report", ".", "--format", "pdf"], "no format 'pdf'"),
        (["report", "a", "b", "--format", "card"], "a model card is of one run"),
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


EVERY = ["evaluate", "export", "replay", "report", "chat"]  # the verbs that read a finished run
DAMAGED_RUN: dict[str, tuple[str, str, list[str]]] = {
    "recipe cut short": ("recipe.yaml", "model: [", [*EVERY, "align", "plan"]),
    "empty recipe": ("recipe.yaml", "", [*EVERY, "align", "plan"]),
    "metrics of another form": ("metrics.jsonl", '[1]\n{"step": 1}\n', ["replay", "report"]),
    "metrics without steps": ("metrics.jsonl", '{"loss": 1}\n', ["replay", "report"]),
    "results of another form": ("results.json", '"x"', ["report"]),
    "an evaluation cut short": ("evaluation/x/facts.json", "{", ["report"]),
    "provenance of another form": ("provenance.json", "[]", ["replay", "report"]),
    "weights overwritten": ("adapter/adapter_model.safetensors", "x", ["evaluate", "export", "chat"]),
    "configuration overwritten": ("adapter/adapter_config.json", "[]", ["evaluate", "export", "chat"]),
    "probe overwritten": ("adapter/probe.json", "{", ["evaluate", "export", "chat"]),
}
MORE = {"evaluate": ["--data", "D"], "export": ["--to", "X"], "chat": ["--prompt", "x"], "replay": ["--out", "X"]}


@pytest.mark.parametrize("case", DAMAGED_RUN)
def test_a_damaged_run(case: str, toy: Any, toy_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, content, verbs = DAMAGED_RUN[case]
    run = shutil.copytree(toy_run.folder, tmp_path / "run")
    (run / file).parent.mkdir(parents=True, exist_ok=True)
    (run / file).write_text(content)
    places = {"D": toy.held_out, "X": str(tmp_path / "X")}
    for verb in verbs:
        more = [places.get(word, word) for word in MORE.get(verb, [])]
        said = refused([verb, str(run), *more], capsys)
        assert Path(file).name in said or "run" in said
    assert not (tmp_path / "X").exists()


DAMAGED_MODEL = {
    "weights": ("model.safetensors", "x"),
    "configuration": ("config.json", "["),
    "configuration of another form": ("config.json", "[]"),
    "tokenizer": ("tokenizer.json", "{"),
    "tokenizer's configuration of another form": ("tokenizer_config.json", "[]"),
    "chat template": ("chat_template.jinja", "{% for %}"),
}


@pytest.mark.parametrize("case", DAMAGED_MODEL)
def test_a_damaged_model(case: str, toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, content = DAMAGED_MODEL[case]
    model = shutil.copytree(toy.model, tmp_path / "model")
    (model / file).write_text(content)
    refused(["align", f"model={model}", f"data={toy.pairs}", f"out={tmp_path / 'run'}"], capsys)
    if case != "weights":  # which plan never reads
        refused(["plan", f"model={model}", f"data={toy.pairs}"], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["schema", "x"], ["doctor", "x"], ["doctor", "--bnch"], ["demo", "--seed", "x"]])
def test_commands_that_take_no_such_word(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert "Error: " in err
    assert "Traceback" not in err


def test_a_demo_into_a_folder_that_is_taken(toy_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds a run already" in refused(["demo", "--out", str(toy_run.folder)], capsys)
