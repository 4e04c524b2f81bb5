"""A stand-in for ``grainline.runs``: the verbs are tested for what they pass on and print, not for training."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest


class StandIn(types.ModuleType):
    """Remembers what it is asked."""

    def __init__(self) -> None:
        super().__init__("grainline.runs")
        self.asked: list[Any] = []
        stand_in = self

        class Run:
            finished = True

            def __init__(self, folder: Any) -> None:
                self.folder = Path(folder)

            def summary(self) -> dict[str, Any]:
                return {"eval_test_rewards/accuracies": 0.75, "step": 20}

            def before(self) -> dict[str, Any]:
                return {"step": 0, "eval_test_rewards/accuracies": 0.5}

            def evaluate(self, data: Any, *, against: Any = None, **measures: Any) -> dict[str, Any]:
                stand_in.asked.append((self.folder, data, *([against, measures] if against or measures else [])))
                return {name: {"loss": 0.5} for name in data}

            def export(self, to: Any, *, format: str, rank: int | None) -> dict[str, Any]:
                stand_in.asked.append((self.folder, to, format, rank))
                return {"path": str(to), "difference": 0.0001234567}

        self.Run: Any = Run

    def run(self, recipe: Any, *, resume: bool = False) -> Any:
        self.asked.append((recipe, resume))
        return self.Run(recipe.out)


@pytest.fixture
def align(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setitem(sys.modules, "grainline.runs", made)
    return made
