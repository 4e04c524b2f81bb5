"""lm-evaluation-harness through us: what it is given, what comes back, and what is said where it is missing. (A real
task is measured by hand with the extra installed: docs/evaluation.md.)"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from grainline.errors import RunError
from grainline.evaluation import harness


@pytest.fixture
def lm_eval(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in with the three names that are used of it."""
    made: Any = types.ModuleType("lm_eval")
    made.asked = []

    class Manager:
        def __init__(self, include_path: Any) -> None:
            made.asked.append(include_path)
            self.all_tasks = ["piqa", "mine"]

    def simple_evaluate(**options: Any) -> Any:
        made.asked.append(options)
        if options["limit"] == 13:
            raise OSError("no such data set")
        scores = {"acc,none": 0.5, "acc_stderr,none": 0.1, "alias": "x", "sample_len": 3}
        return {"results": dict.fromkeys(options["tasks"], scores)}

    made.simple_evaluate = simple_evaluate
    models, hf, tasks = (types.ModuleType(f"lm_eval.{name}") for name in ("models", "models.huggingface", "tasks"))
    hf.HFLM, tasks.TaskManager = lambda **options: options, Manager  # type: ignore[attr-defined]
    for module in (made, models, hf, tasks):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    return made


def test_what_it_is_given_and_what_comes_back(lm_eval: Any, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("# ours\ntask: mine\n", encoding="utf-8")
    found = harness.measure("model", "words", ["piqa", str(tmp_path / "t.yaml")], rows=7, seed=3)
    assert found == {task: {"acc": 0.5, "acc_stderr": 0.1} for task in ("piqa", "mine")}
    include, options = lm_eval.asked
    assert include == [str(tmp_path)]
    assert (options["tasks"], options["limit"], options["random_seed"]) == (["piqa", "mine"], 7, 3)
    assert options["bootstrap_iters"] > 0  # it gives no standard error otherwise
    assert options["model"] == {"pretrained": "model", "tokenizer": "words"}


def test_mistakes(lm_eval: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="knows no task 'piqq'"):
        harness.measure("model", "words", ["piqq"])
    with pytest.raises(RunError, match=r"no such data set.*in the cache"):
        harness.measure("model", "words", ["piqa"], rows=13)
    with pytest.raises(RunError, match=r"none\.yaml.*unreadable|unreadable.*none\.yaml"):
        harness.measure("model", "words", [str(tmp_path / "none.yaml")])
    (tmp_path / "t.yaml").write_text("x: 1\n", encoding="utf-8")
    with pytest.raises(RunError, match="names no task"):
        harness.measure("model", "words", [str(tmp_path / "t.yaml")])


def test_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"pip install grainline\[lm-eval\]"):
        harness.measure("model", "words", ["piqa"])
