"""A run's folder as align writes it, with figures chosen by hand; no model is trained here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Make = Callable[..., Path]
"""What the fixture ``make`` of tests/report gives."""

RECIPE = """\
model:
  name: org/base-model
  dtype: float32
data:
- path: pairs.jsonl
evaluation:
  data:
    test:
      path: org/held-out
      split: test
supervision: sequence
objective: dpo:beta=0.2 + 0.1*sft
adapter: lora:rank=4
optimizer: adamw:lr=0.01
steps: 30
batch_size: 8
max_grad_norm: 1.0
seed: 3
out: runs/first
"""

NASTY = "<script>alert(1)</script>\x1b[31m \u202egnp.exe\u202c \x00 \ud800 ]]> {{ 7*7 }} $x$ ![a](http://evil.example)"
"""What data may hold to hurt those who look at it."""


def look(step: int, accuracy: float, **more: float) -> dict[str, float]:
    """The line of an evaluation on ``test``."""
    metrics = {
        "rewards/accuracies": accuracy,
        "rewards/accuracies_low": max(0.0, accuracy - 0.1) if step else accuracy,
        "rewards/accuracies_high": min(1.0, accuracy + 0.1) if step else accuracy,
        "rewards/margins": 4 * (accuracy - 0.5),
        "logps/chosen_per_token": -3.0 + step / 100,
        "logps/chosen": -300.0 + step,
        "logps/rejected": -280.0 - step,
        "rewards/clear/margins": 2 * (accuracy - 0.5),
        "rewards/clear/margins_low": accuracy - 0.5,
        "rewards/clear/margins_high": 3 * (accuracy - 0.5),
        "rewards/clear/accuracies": accuracy,
        "rows": 40.0,
    } | more
    return {"step": step, **{f"eval_test_{key}": value for key, value in metrics.items()}}


def step(number: int) -> dict[str, float]:
    """The line of a training step."""
    return {
        "step": number,
        "loss": 1 / number,
        "rewards/accuracies": 0.75,
        "rewards/margins": number / 10,
        "rewards/chosen": number / 20,
        "rewards/rejected": -number / 20,
        "rewards/clear/margins": number / 30,
        "logps/chosen": -300.0 + number,
        "logps/rejected": -280.0,
        "grad_norm": 2.0,
        "learning_rate": 0.01 / number,
        "num_tokens": 100 * number,
        "num_rows": 8 * number,
        "seconds": 2.0 * number,
    }


LINES = [look(0, 0.5), *map(step, range(1, 16)), look(15, 0.7), *map(step, range(16, 31)), look(30, 0.8)]


def lines(values: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def write(root: Path, name: str = "first", /, **files: Any) -> Path:
    """A finished run's folder; a file given as None is left out, one given as text stands as it is."""
    found: dict[str, Any] = {
        "recipe.yaml": RECIPE,
        "metrics.jsonl": lines(LINES),
        "results.json": json.dumps(step(30) | look(30, 0.8) | {"peak_memory": 1.25e9}),
        "provenance.json": json.dumps(
            {
                "time": "2026-01-02T03:04:05Z",
                "versions": {"torch": "2.9.0", "grainline": "0.1.0"},
                "machine": {"processor": "Abacus", "cores": 2, "threads": 1},
                "model": {"source": "org/base-model", "sha256": "ab" * 32},
                "seed": 3,
                "run": {"trainable": 4096, "layout": "tree"},
                "data": {
                    "train": [{"path": "pairs.jsonl", "digest": "cd" * 32, "rows": 50}],
                    "evaluation": {"test": {"path": "org/held-out", "digest": "ef" * 32, "rows": 40}},
                },
            }
        ),
        "samples.jsonl": lines(
            [{"id": "a", "prompt": [{"role": "user", "content": "why?"}], "policy": "so", "reference": "thus"}]
        ),
    }
    found |= {key.replace("__", "-").replace("_", "."): text for key, text in files.items()}
    folder = root / name
    folder.mkdir()
    for file, text in found.items():
        if text is not None:
            (folder / file).write_text(text, encoding="utf-8")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"x" * 1500)
    return folder


def nasty(root: Path, name: str = "first") -> Path:
    """A run in which all text that data can reach is hostile."""
    aspect = f"eval_{NASTY}_rewards/{NASTY}/margins"
    log = [look(0, 0.5) | {aspect: 0.0, f"eval_{NASTY}_rows": 4.0}]
    log += [*map(step, range(1, 5)), look(4, 0.8) | {aspect: 1.0, f"{aspect}_low": 0.5, f"eval_{NASTY}_rows": 4.0}]
    log[-1] |= {f"{aspect}_high": 2.0, "eval_test_" + NASTY: 1.0, f"eval_test_rewards/{NASTY}/margins": 1.0}
    turn = {"role": NASTY, "content": NASTY}
    sample = {"id": NASTY, "prompt": [turn], "policy": "x" * 100_000 + NASTY, "reference": NASTY}
    return write(
        root,
        name,
        recipe_yaml=RECIPE + json.dumps(NASTY) + ": " + json.dumps(NASTY) + "\n",
        metrics_jsonl=lines(log),
        results_json=json.dumps(log[-1]),
        samples_jsonl=lines([sample, {"prompt": NASTY, "policy": NASTY}]),
        warnings_jsonl=lines([{"seen": NASTY, "instead": NASTY, "step": NASTY, "kind": NASTY}]),
        provenance_json=json.dumps({"time": NASTY, "versions": {NASTY: NASTY}, "machine": {"processor": NASTY}}),
    )
