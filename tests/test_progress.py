"""Progress: a bar on a terminal, a few lines elsewhere, always on standard error."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState

from grainline import progress

SCORES = {"eval_t_rewards/accuracies": 0.75, "eval_t_rewards/accuracies_low": 0.5, "eval_t_rewards/accuracies_high": 1}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a person at a terminal sees."""
    stream = io.StringIO()
    screen = Console(file=stream, force_terminal=True, width=120, highlight=False)
    monkeypatch.setattr(progress, "console", lambda: screen)
    return stream


def test_say(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("data: [a.jsonl], " + "x" * 200)
    progress.say("nothing", quiet=True)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "data: [a.jsonl], " + "x" * 200 + "\n")  # no markup, no wrapping


def test_track_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([1, 2, 3], "reading")) == [1, 2, 3]
    first, last = capsys.readouterr().err.splitlines()
    assert first == "reading ..."
    assert last.startswith("reading: 0.0 s")


@pytest.mark.parametrize(("items", "quiet"), [([], False), ([1, 2], True)])
def test_track_without_words(items: list[int], quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(items, "reading", quiet=quiet)) == items
    assert capsys.readouterr().err == ""


def test_track_on_a_terminal(terminal: io.StringIO) -> None:
    assert list(progress.track([1, 2, 3], "reading")) == [1, 2, 3]
    assert "3/3" in terminal.getvalue()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")  # the cursor is back


def train(shown: progress.ShowProgress, *, steps: int = 3, first: int = 0, end: bool = True) -> None:
    """The events of a run."""
    state: Any = TrainerState(max_steps=steps, global_step=first)
    control = TrainerControl()
    shown.on_train_begin(None, state, control)
    for step in range(first + 1, steps + 1):
        state.global_step = step
        shown.on_log(None, state, control, logs={"loss": 1 / step, "rewards/accuracies": 0.5, "other": 9.0})
    shown.on_evaluate(None, state, control, metrics=SCORES)
    if end:
        shown.on_train_end(None, state, control)


def test_a_run_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    train(progress.ShowProgress())
    first, last, score = capsys.readouterr().err.splitlines()
    assert first.startswith("training 1/3  loss 1.0000  accuracy 0.50  0 s, ")
    assert last.startswith("training 3/3  loss 0.3333  accuracy 0.50")
    assert score == "step 3: eval_t_rewards/accuracies 0.750 [0.500, 1.000]"


def test_a_resumed_run_counts_its_own_steps(capsys: pytest.CaptureFixture[str]) -> None:
    train(progress.ShowProgress("going on"), steps=9, first=8)
    assert capsys.readouterr().err.startswith("going on 9/9  loss 0.1111")


def test_a_run_on_a_terminal(terminal: io.StringIO) -> None:
    train(progress.ShowProgress())
    text = terminal.getvalue()
    assert "3/3" in text
    assert "loss 0.3333" in text
    assert "eval_t_rewards/accuracies 0.750 [0.500, 1.000]" in text


def test_a_run_that_fails_gives_the_cursor_back(terminal: io.StringIO) -> None:
    shown = progress.ShowProgress()
    train(shown, end=False)
    assert terminal.getvalue().endswith("\x1b[?25h") is False
    shown.close()
    shown.close()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


def test_the_start_is_said_once_and_the_first_step_too(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import TrainerControl, TrainerState

    start = {"start/policy_minus_reference": 0.0, "start/loss": 0.693147, "start/constant": 0.693147}
    state, control, bar = TrainerState(max_steps=1), TrainerControl(), progress.ShowProgress()
    bar.on_train_begin(None, state, control)
    bar.on_log(None, state, control, logs=start)
    state.global_step = 1
    bar.on_log(None, state, control, logs={"step": 1, "loss": 0.7, **start})
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("before step 1: policy and reference within 0.0e+00")
    assert second.startswith("training 1/1  loss 0.7000")
