"""A replay gives the run's numbers again; what would give others is refused before anything is written."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from grainline import models, replay
from grainline.errors import RunError
from grainline.runs import align

if TYPE_CHECKING:
    from _toy import Toy
    from grainline.runs import Run


def test_a_replay_is_bitwise_equal(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    found = replay.replay(toy_run.folder, tmp_path / "again", progress=False)
    assert found.compared.verdict == "bitwise equal"
    assert found.compared.steps == 20
    assert found.compared.weights == json_of(toy_run.folder / "provenance.json")["run"]["trainable"]
    counted = sum(len(line.keys() - {"step", "seconds"}) for line in toy_run.metrics)
    assert found.compared.numbers == counted
    assert found.compared.alone == ()
    assert found.elsewhere == {}


def test_the_first_steps_keep_the_schedule_of_all(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    found = replay.replay(toy_run.folder, tmp_path / "few", steps=7, progress=False)
    assert (found.compared.verdict, found.compared.steps) == ("bitwise equal", 7)
    rates = [line["learning_rate"] for line in replay.runs.Run(tmp_path / "few").metrics if "loss" in line]
    assert rates == [line["learning_rate"] for line in toy_run.metrics if "loss" in line][:7]
    assert not (tmp_path / "few" / "results.json").exists()


def test_a_run_that_was_stopped_is_repeated_as_far_as_it_came(toy: Toy, tmp_path: Path) -> None:
    run = align(**toy.choices(tmp_path / "run", steps=6, callbacks=[replay.StopAfter(4)]))
    assert not run.finished
    found = replay.replay(run.folder, tmp_path / "again", progress=False)
    assert (found.compared.verdict, found.compared.steps) == ("bitwise equal", 4)


def test_rows_kept_in_a_folder_that_moved(toy: Toy, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(toy.pairs).read_text().splitlines()]
    align(**toy.choices(tmp_path / "run", data=rows))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    found = replay.replay(tmp_path / "moved", tmp_path / "again", progress=False)
    assert found.compared.verdict == "bitwise equal"


def test_another_number_is_found_with_its_step(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    """The same run, remembered with one loss that is off: the replay says which, where, and by how much."""
    remembered = copy(toy_run, tmp_path / "run")
    lines = [json.loads(line) for line in (remembered / "metrics.jsonl").read_text().splitlines()]
    (third,) = [line for line in lines if line["step"] == 3 and "loss" in line]
    true = third["loss"]
    third["loss"] += 0.25
    (remembered / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = replay.replay(remembered, tmp_path / "again", steps=4, progress=False).compared
    assert found.verdict == "different"
    (only,) = found.differences
    assert (only.metric, only.step, only.run, only.replay) == ("loss", 3, true + 0.25, true)


# --------------------------------------------------------------------------------------------------------- refusals


def changed_row(toy: Toy, folder: Path, key: str) -> Path:
    """A run on a copy of the data, one word of which is then another."""
    file = folder / f"{key}.jsonl"
    file.write_text(Path(getattr(toy, key)).read_text())
    choices = {"data": str(file)} if key == "pairs" else {"evaluation": {"data": {"test": str(file)}}}
    run = align(**toy.choices(folder / "run", **choices))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[3]["weight"] = 3.0  # the tokens stay what they are
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run.folder


@pytest.mark.parametrize("key", ["pairs", "held_out"])
def test_another_row_is_refused_by_the_name_of_its_file(toy: Toy, tmp_path: Path, key: str) -> None:
    folder = changed_row(toy, tmp_path, key)
    with pytest.raises(RunError, match=rf"data .*{key}\.jsonl: its rows are not those of the run\."):
        replay.replay(folder, tmp_path / "again", progress=False)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("place", "said"), [(("model", "sha256"), "model .*weights are not"), (("data", "tokens"), "data: .*other tokens")]
)
def test_another_model_or_tokenizer_is_refused(
    toy: Toy, toy_run: Run, tmp_path: Path, place: tuple[str, str], said: str
) -> None:
    folder = copy(toy_run, tmp_path / "run")
    facts = json_of(folder / "provenance.json")
    facts[place[0]][place[1]] = "0" * 64
    (folder / "provenance.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=said):
        replay.replay(folder, tmp_path / "again", progress=False)
    assert not (tmp_path / "again").exists()


def test_another_adapter_to_go_on_from_is_refused(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    choices = toy.choices(tmp_path / "run", model={"name": toy.model, "adapter": str(toy_run.adapter)}, steps=1)
    del choices["adapter"]
    run = align(**choices)
    assert replay.replay(run.folder, tmp_path / "same", progress=False).compared.verdict == "bitwise equal"
    facts = json_of(run.folder / "provenance.json")
    assert len(facts["model"]["adapter_sha256"]) == 64
    facts["model"]["adapter_sha256"] = "0" * 64
    (run.folder / "provenance.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"adapter .*not the one that the run went on from"):
        replay.replay(run.folder, tmp_path / "again", progress=False)
    assert not (tmp_path / "again").exists()


def test_the_model_is_read_once(toy_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = [], models.load
    monkeypatch.setattr(models, "load", lambda choice, **how: read.append(choice) or real(choice, **how))
    replay.replay(toy_run.folder, tmp_path / "again", steps=1, progress=False)
    assert len(read) == 1


@pytest.mark.parametrize("line", ["[1]", '{"loss": 1}', '{"step": "x"}', '{"step": 1, "loss": '])
def test_damaged_metrics_are_named(toy_run: Run, tmp_path: Path, line: str) -> None:
    folder = copy(toy_run, tmp_path / "run")
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(f"{line}\n{whole}")
    with pytest.raises(RunError, match=r"metrics\.jsonl:1: "):
        replay.replay(folder, tmp_path / "again", progress=False)


def test_what_cannot_be_repeated(toy: Toy, toy_run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="21 steps are asked for, the run has 1 to 20"):
        replay.replay(toy_run.folder, tmp_path / "again", steps=21)
    with pytest.raises(RunError, match="holds a run already"):
        replay.replay(toy_run.folder, toy_run.folder)
    folder = copy(toy_run, tmp_path / "run")
    facts = json_of(folder / "provenance.json")
    del facts["data"]["tokens"]  # as an older version wrote it
    (folder / "provenance.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"provenance\.json: data\.tokens is not in it"):
        replay.replay(folder, tmp_path / "again")
    (folder / "provenance.json").unlink()
    with pytest.raises(RunError, match=r"no provenance\.json"):
        replay.replay(folder, tmp_path / "again")


# -------------------------------------------------------------------------------------------------------- comparing


def test_verdicts() -> None:
    run = {1: {"loss": 0.5, "grad_norm": 1000.0}, 2: {"loss": 0.25, "grad_norm": 2.0}}
    assert replay.compare(run, run).verdict == "bitwise equal"
    near = {1: {"loss": 0.5, "grad_norm": 1000.005}, 2: {"loss": 0.25 + 1e-6, "grad_norm": 2.0}}
    found = replay.compare(run, near)
    assert found.verdict == "equal within rounding"  # 5e-3 of 1000 is 5e-6 of it
    assert [(d.metric, d.step) for d in found.differences] == [("grad_norm", 1), ("loss", 2)]
    far = {1: {"loss": 0.5, "grad_norm": 1000.0}, 2: {"loss": 0.25 + 2e-5, "grad_norm": 2.0}}
    assert replay.compare(run, far).verdict == "different"


def test_the_farthest_step_is_kept() -> None:
    run = {step: {"loss": 0.0} for step in range(1, 5)}
    other = {step: {"loss": apart} for step, apart in zip(range(1, 5), (0.1, -0.4, 0.3, 0.0), strict=True)}
    (only,) = replay.compare(run, other).differences
    assert (only.largest, only.step, only.replay) == (0.4, 2, -0.4)


def test_a_missing_number_is_a_difference_and_a_new_metric_is_not() -> None:
    run = {1: {"loss": 0.5}, 2: {"loss": 0.25}}
    found = replay.compare(run, {1: {"loss": 0.5}})
    assert (found.verdict, found.absent) == ("different", ("loss at step 2 (replay)",))
    found = replay.compare(run, {1: {"loss": 0.5, "new": 1.0}, 2: {"loss": 0.25, "new": 1.0}})
    assert (found.verdict, found.alone, found.numbers) == ("bitwise equal", ("new",), 2)


def test_nan_is_nan_and_nothing_else() -> None:
    nan = {1: {"loss": math.nan}}
    assert replay.compare(nan, nan).verdict == "bitwise equal"
    assert replay.compare(nan, {1: {"loss": 0.0}}).differences[0].largest == math.inf


def test_what_differs_of_the_machine() -> None:
    before = {"time": "a", "versions": {"torch": "2.9"}, "machine": {"threads": 1}, "data": {"train": [1]}}
    after = {"time": "b", "versions": {"torch": "2.10"}, "machine": {"threads": 1}, "data": {"train": [2]}}
    assert replay.differing(before, after) == {"versions.torch": ("2.9", "2.10")}


def copy(run: Run, folder: Path) -> Path:
    shutil.copytree(run.folder, folder)
    return folder


def json_of(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
