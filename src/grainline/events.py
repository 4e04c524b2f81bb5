"""What reaches into the loop from outside: callbacks, Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainerControl, TrainerState

from grainline.reduction import reduce


class Events:
    """Calls transformers-style callbacks: each may have any of the event methods, and may answer with a control."""

    def __init__(self, callbacks: Sequence[Any], state: TrainerState, **known: Any) -> None:
        self.callbacks, self.state, self.known = callbacks, state, known
        self.control = TrainerControl()

    def __call__(self, event: str, **more: Any) -> TrainerControl:
        if event == "on_step_begin":  # what a callback asks for holds until the end of the step
            self.control.should_save = self.control.should_evaluate = False
        for callback in self.callbacks:
            if (method := getattr(callback, event, None)) is not None:
                self.control = method(None, self.state, self.control, **self.known, **more) or self.control
        return self.control


class Stop:
    """Ctrl-C and SIGTERM ask for a stop after the current step; a second Ctrl-C is Python's own."""

    def __init__(self) -> None:
        self.flag = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        self.flag = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def asked(self, accelerator: Accelerator) -> bool:
        """Has any process been asked? All must leave the loop together."""
        return bool(reduce({"stop": torch.tensor(float(self.flag))}, accelerator)["stop"] > 0)
