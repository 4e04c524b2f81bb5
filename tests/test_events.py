"""Callbacks under transformers' names, and how a run is stopped from outside."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState

from _build import logged, train
from grainline.events import Events, Stop
from grainline.forward import Scorer


class Diary:
    """Writes down which events came, at which step."""

    def __init__(self) -> None:
        self.pages: list[tuple[str, int]] = []
        self.known: dict[str, Any] = {}

    def __getattr__(self, event: str) -> Any:
        if not event.startswith("on_"):
            raise AttributeError(event)

        def write(args: None, state: TrainerState, control: TrainerControl, **known: Any) -> None:
            self.pages.append((event, state.global_step))
            self.known[event] = known

        return write


class At(TrainerCallback):
    """Sets a control at the end of one step (a transformers callback as people write them)."""

    def __init__(self, step: int, **controls: bool) -> None:
        self.step, self.controls = step, controls

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **known: Any) -> TrainerControl:
        if state.global_step == self.step:
            for name, value in self.controls.items():
                setattr(control, name, value)
        return control


def saved(folder: Path) -> list[str]:
    return sorted(f.name for f in (folder / "checkpoints").iterdir())


def test_events_come_in_transformers_order(tiny_llama: Any, tmp_path: Path) -> None:
    diary = Diary()
    train(
        tiny_llama, tmp_path, steps=2, callbacks=[diary], plan={"evaluate_every": 1}, evaluate=lambda: {"eval_x": 1.0}
    )
    assert diary.pages == [
        ("on_train_begin", 0),
        *[("on_step_begin", 0), ("on_log", 0)],  # the invariants before the first step
        *[("on_step_end", 1), ("on_log", 1), ("on_evaluate", 1)],
        *[("on_step_begin", 1), ("on_step_end", 2), ("on_log", 2), ("on_evaluate", 2), ("on_save", 2)],
        ("on_train_end", 2),
    ]
    assert isinstance(diary.known["on_step_end"]["model"], Scorer)
    assert diary.known["on_step_end"]["optimizer"].param_groups
    assert diary.known["on_log"]["logs"]["loss"] == logged(tmp_path)[2]["loss"]
    assert diary.known["on_evaluate"]["metrics"] == {"eval_x": 1.0}


def test_callback_stops_the_run(tiny_llama: Any, tmp_path: Path) -> None:
    outcome = train(tiny_llama, tmp_path, steps=5, callbacks=[At(2, should_training_stop=True)])
    assert (outcome.step, outcome.finished) == (2, False)
    assert len(logged(tmp_path)) == 2
    assert saved(tmp_path) == ["step-000002"]


def test_callback_saves_and_evaluates_once(tiny_llama: Any, tmp_path: Path) -> None:
    """What is asked for at the end of a step survives the events that follow in it, and not the step."""
    asked = []

    def evaluate() -> dict[str, float]:
        asked.append(1)
        return {"x": 1.0}

    train(
        tiny_llama,
        tmp_path,
        steps=4,
        callbacks=[At(2, should_save=True, should_evaluate=True), Diary()],
        evaluate=evaluate,
    )
    assert saved(tmp_path) == ["step-000002", "step-000004"]
    assert len(asked) == 2  # at step 2, and at the end
    assert [line["step"] for line in logged(tmp_path) if "x" in line] == [2, 4]


def test_callback_may_stop_after_an_evaluation(tiny_llama: Any, tmp_path: Path) -> None:
    class Enough(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: TrainerControl, **known: Any) -> None:
            control.should_training_stop = known["metrics"]["x"] > 0

    outcome = train(
        tiny_llama, tmp_path, steps=4, callbacks=[Enough()], plan={"evaluate_every": 2}, evaluate=lambda: {"x": 1.0}
    )
    assert outcome.step == 2
    assert saved(tmp_path) == ["step-000002"]


def test_callback_may_answer_with_a_control_of_its_own() -> None:
    class Own:
        def on_log(self, *_: Any, **__: Any) -> TrainerControl:
            return TrainerControl(should_save=True)

    emit = Events([Own(), object()], TrainerState())
    assert emit("on_step_end").should_save is False
    assert emit("on_log").should_save is True
    assert emit("on_evaluate").should_save is True
    assert emit("on_step_begin").should_save is False


class Signal:
    def __init__(self, number: signal.Signals, step: int) -> None:
        self.number, self.step = number, step

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **known: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_after_the_step_and_saves(number: signal.Signals, tiny_llama: Any, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    outcome = train(tiny_llama, tmp_path, steps=5, callbacks=[Signal(number, 2)])
    assert (outcome.step, outcome.finished) == (3, False)  # the third step was begun, and is done
    assert [line["step"] for line in logged(tmp_path)] == [1, 2, 3]
    assert saved(tmp_path) == ["step-000003"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_interrupt_is_pythons_own() -> None:
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked(Accelerator(cpu=True))
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    seen = []

    def inside() -> None:
        with Stop() as stop:
            seen.append((stop.flag, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
