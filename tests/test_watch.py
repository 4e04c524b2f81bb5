"""Warnings: each fires on a sequence made for it, says so once, and a healthy run hears none."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from _toy import Toy
from grainline.runs import Run, align
from grainline.watch import CLIPPED, FILE, FLAT, KINDS, WINDOW, Logged, Watch, findings

BETA = 0.1


def healthy(i: int) -> dict[str, float]:
    """Step i of a run that goes well: the loss falls, chosen answers gain, rejected ones lose."""
    noise, t = random.Random(i).uniform(-1, 1), min(1.0, i / 100)
    return {
        "step": i,
        "loss": 0.69 - 0.3 * t + 0.02 * noise,
        "logps/chosen": -100 + 20 * noise,
        "logps/rejected": -110 + 20 * noise,
        "rewards/chosen": 0.5 * t + 0.05 * noise,
        "rewards/rejected": -0.5 * t + 0.05 * noise,
        "rewards/margins": t + 0.05 * noise,
        "rewards/margins_squared": 1.5 * t * t + 0.01,
        "rewards/accuracies": 0.5 + 0.3 * t + 0.05 * noise,
        "rewards/accuracies_shorter": 0.5 + 0.25 * t + 0.05 * noise,
        "grad_norm": 0.5 + 0.1 * noise,
    }


def steps(count: int, change: Callable[[int], dict[str, float]] = lambda i: {}) -> list[dict[str, float]]:
    return [healthy(i) | change(i) for i in range(1, count + 1)]


def logged(lines: list[dict[str, float]], beta: float | None = BETA) -> Logged:
    made = Logged(beta=beta, max_grad_norm=1.0)
    for line in lines:
        (made.step if "loss" in line else made.look)(line)
    return made


def kinds(lines: list[dict[str, float]], beta: float | None = BETA) -> list[str]:
    made = logged(lines, beta)
    return [finding.kind for finding in findings(made, made.steps)]


def look(step: int, accuracy: float, wide: float = 0.01) -> dict[str, float]:
    name = "eval_test_rewards/accuracies"
    return {"step": step, name: accuracy, f"{name}_low": accuracy - wide, f"{name}_high": accuracy + wide}


LATE = 60
TROUBLE: dict[str, list[dict[str, float]]] = {
    "displaced": steps(LATE, lambda i: {"rewards/chosen": -0.05 * i, "rewards/rejected": -0.1 * i}),
    "both_falling": steps(
        LATE, lambda i: {"rewards/chosen": -0.05 * i, "rewards/rejected": -0.05 * i, "rewards/margins": -0.001 * i}
    ),
    "saturated": steps(
        LATE,
        lambda i: {"rewards/accuracies": 1.0, "rewards/margins": 0.2 * i, "rewards/margins_squared": 0.05 * i * i},
    ),
    "spike": steps(LATE, lambda i: {"grad_norm": 9.0} if i == LATE else {}),
    "clipped": steps(LATE, lambda i: {"grad_norm": 2.0}),
    "flat": steps(LATE, lambda i: {"loss": 0.693 + 0.001 * (i % 2)}),
    "overfitting": [*steps(30), look(30, 0.7), *steps(80)[30:], look(80, 0.65)],
    "length": steps(LATE, lambda i: {"rewards/accuracies_shorter": 0.5 - 0.005 * i}),
    "few_pairs": steps(LATE, lambda i: {"rewards/accuracies": 0.8, "rewards/margins_squared": 16 * (i / 100) ** 2}),
}


def test_every_kind_is_tried() -> None:
    assert TROUBLE.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_each_fires_on_its_own_trouble_alone(kind: str) -> None:
    assert kinds(TROUBLE[kind]) == [kind]


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_on_its_page(kind: str) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "warnings.md"
    assert f"`{kind}`" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [1, 2, WINDOW, 2 * WINDOW, FLAT, CLIPPED, 150])
def test_a_healthy_run_hears_nothing(count: int) -> None:
    assert kinds([*steps(count), look(count, 0.7)]) == []


def test_a_real_healthy_run_hears_nothing(toy_run: Run) -> None:
    assert not (toy_run.folder / FILE).exists()
    lines = [line for line in toy_run.metrics if line["step"]]
    assert len(lines) > 20
    for end in range(1, len(lines) + 1):
        assert kinds(lines[:end]) == []


def test_few_steps_say_nothing() -> None:
    """One step differs from the next by its rows: nothing is concluded from two."""
    wild = steps(2 * WINDOW - 1, lambda i: {"rewards/chosen": -9.0 * i, "rewards/rejected": -9.0 * i, "loss": 9.0 * i})
    assert kinds(wild) == []


def test_without_a_reference_log_probs_are_compared_beyond_their_noise() -> None:
    def lines(fall: float) -> list[dict[str, float]]:
        made = steps(LATE, lambda i: {"logps/chosen": healthy(i)["logps/chosen"] - fall * i / LATE})
        return [{k: v for k, v in line.items() if k not in ("rewards/chosen", "rewards/rejected")} for line in made]

    assert kinds(lines(80.0), beta=None) == ["displaced"]
    assert kinds(lines(10.5), beta=None) == []  # rows differ by more
    assert kinds(lines(80.0)) == ["displaced"]  # a beta, but no reward


def test_an_objective_without_pairs() -> None:
    names = ("step", "loss", "grad_norm")
    lines = [{name: line[name] for name in names} | {"logps/answer": -90.0} for line in steps(80)]
    assert kinds(lines) == []


def test_a_wide_interval_is_no_overfitting() -> None:
    assert kinds([*steps(30), look(30, 0.7, wide=0.2), *steps(80)[30:], look(80, 0.65, wide=0.2)]) == []
    # nor is a fall that training shares
    worse = steps(80, lambda i: {"rewards/accuracies": 0.9 - 0.005 * i})
    assert kinds([*worse[:30], look(30, 0.7), *worse[30:], look(80, 0.6)]) == []


# ------------------------------------------------------------------------------------------------------ the callback


def train(watch: Watch, lines: list[dict[str, float]], first: int = 0) -> None:
    state: Any = TrainerState(max_steps=len(lines), global_step=first)
    control = TrainerControl()
    watch.on_train_begin(None, state, control)
    watch.on_log(None, state, control, logs={"start/loss": 0.69})
    for line in lines:
        state.global_step = int(line["step"])
        if "loss" in line:
            watch.on_log(None, state, control, logs=line)
        else:
            watch.on_evaluate(None, state, control, metrics=line)


def written(folder: Path) -> list[dict[str, Any]]:
    file = folder / FILE
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_said_once_and_again_when_it_doubles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = steps(100, lambda i: {"rewards/chosen": -0.05 * i, "rewards/rejected": -0.1 * i})
    train(Watch(tmp_path, beta=BETA), lines)
    found = written(tmp_path)
    assert [line["kind"] for line in found] == ["displaced"] * 3
    assert found[0]["amount"] >= 10
    assert all(after["amount"] >= 2 * before["amount"] for before, after in itertools.pairwise(found))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0].startswith(f"warning, step {found[0]['step']}: chosen answers have become 1")
    assert "objective.beta" in said[0]


def test_quiet_writes_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(Watch(tmp_path, max_grad_norm=1.0, quiet=True), TROUBLE["clipped"])
    assert capsys.readouterr().err == ""
    assert [line["kind"] for line in written(tmp_path)] == ["clipped"]


def test_an_evaluation_is_heard(tmp_path: Path) -> None:
    train(Watch(tmp_path, quiet=True), TROUBLE["overfitting"])
    (found,) = written(tmp_path)
    assert (found["kind"], found["step"]) == ("overfitting", 80)
    assert "from 0.700 at step 30 to 0.650" in found["seen"]


def test_a_resumed_run_remembers(tmp_path: Path) -> None:
    """What was said before the checkpoint is not said again; what was said after it is, once it is seen again."""
    lines = TROUBLE["displaced"]
    train(Watch(tmp_path, beta=BETA, quiet=True), lines)
    whole = written(tmp_path)
    assert len(whole) > 1
    at = whole[0]["step"] + 1
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:at]))
    train(Watch(tmp_path, beta=BETA, quiet=True), lines[at:], first=at)
    assert written(tmp_path) == whole


def test_a_run_warns(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wired into runs: quietly where nobody wants progress."""
    run = align(**toy.choices(tmp_path / "run", steps=CLIPPED, max_grad_norm=1e-6))
    assert "clipped" in [line["kind"] for line in written(run.folder)]
    assert "warning" not in capsys.readouterr().err
