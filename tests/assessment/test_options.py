"""No option of an evaluation is dead: each changes a figure or a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import _sentences
from _toy import Toy, jsonl
from grainline import models
from grainline.evaluation.measures import Measures

SAID = {"generate": 3, "max_new_tokens": 6}
GOAL = {**SAID, "condition": {"warmth": 9}}
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "families": ({}, ["geometry"]),
    "generate": (SAID, 2),
    "prompts": (SAID, "PROMPTS"),
    "draws": ({**SAID, "temperature": 1.0}, 2),
    "max_new_tokens": (SAID, 2),
    "temperature": (SAID, 3.0),
    "seed": ({}, 5),
    "embedding": (SAID, "SENTENCES"),
    "judge": (SAID, "JUDGE"),
    "condition": (SAID, {"warmth": 9}),
    "condition_style": (GOAL, "tokens"),
    "condition_place": (GOAL, "user"),
    "condition_scale": (GOAL, [1, 9]),
    "levels": ({**SAID, "judge": "JUDGE"}, {"warm": [1, 2]}),
    "neutral": ({"families": ["forgetting"]}, "NEUTRAL"),
    "tasks": ({"families": ["forgetting"]}, ["piqa"]),
    "task_rows": ({"families": ["forgetting"], "tasks": ["piqa"]}, 3),
    "place": ({}, "place"),
    "pairs": ({}, 2),
}


def test_every_option_has_a_case() -> None:
    assert set(CASES) == {field.name for field in dataclasses.fields(Measures)}  # type: ignore[arg-type]


@pytest.mark.parametrize("option", CASES)
def test_it_changes_something(
    option: str, world: Any, copied: Any, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    from grainline.assessment import weights

    scores = types.SimpleNamespace(measure=lambda *a, rows, seed: {"piqa": {"acc": float(rows)}})
    monkeypatch.setattr(weights, "harness", scores)
    rows = [json.loads(line) for line in Path(toy.held_out).read_text(encoding="utf-8").splitlines()]
    data = jsonl(tmp_path / "test.jsonl", [row | {"place": i % 3} for i, row in enumerate(rows)])
    (tmp_path / "neutral.txt").write_text("the cat and the mat", encoding="utf-8")
    (tmp_path / "prompts.json").write_text(json.dumps([{"instruction": "sea"}]), encoding="utf-8")
    files = {
        "JUDGE": f"{world.rewards}:Warmth",
        "NEUTRAL": tmp_path / "neutral.txt",
        "PROMPTS": tmp_path / "prompts.json",
        "SENTENCES": _sentences.tiny(tmp_path / "sentences", models.load_tokenizer(toy.model))
        if option == "embedding"
        else "",
    }

    def named(value: Any) -> Any:
        return str(files.get(value, value)) if isinstance(value, str) else value

    before, value = CASES[option]
    options = {key: named(one) for key, one in before.items()}
    seen = []
    for more in ({}, {option: named(value)}):
        run = copied()
        figures = run.evaluate({"test": data}, progress=False, **options | more)
        folder = run.folder / "evaluation" / "test"
        written = {
            f.name: f.read_bytes()
            for f in folder.iterdir()
            if f.is_file() and f.name not in ("facts.json", "keys.json")
        }
        seen.append((figures, written))
    assert seen[0] != seen[1]
