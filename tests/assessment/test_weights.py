"""Weights and plain text of a run, against what others say of them."""

from __future__ import annotations

import importlib.util
import json
import math
import types
from typing import Any

import peft
import pytest
import torch
import transformers

from _toy import Toy
from grainline.assessment import weights


def test_layers_are_those_of_a_merge(world: Any) -> None:
    """transformers' base beside PEFT's merged model, matrix by matrix."""
    before = transformers.AutoModelForCausalLM.from_pretrained(world.toy.model)
    after: Any = transformers.AutoModelForCausalLM.from_pretrained(world.toy.model)
    after = peft.PeftModel.from_pretrained(after, str(world.run.adapter)).merge_and_unload()
    lines = world.facts()["families"]["geometry"]["tables"]["layers"]
    assert len(lines) == world.figures["geometry/matrices"] == 14
    for line in lines:
        old, new = (model.get_submodule(line["name"]).weight.detach() for model in (before, after))
        assert line["change"] == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-4)


def test_perplexities_are_those_of_plain_models(world: Any) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(world.toy.model)
    adapted = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(world.toy.model), str(world.run.adapter)
    )
    words = transformers.AutoTokenizer.from_pretrained(world.toy.model)
    from grainline.evaluation import neutral

    pieces = neutral.pieces(words)
    for model, name in ((base, "forgetting/perplexity_before"), (adapted, "forgetting/perplexity")):
        total, count = 0.0, 0
        with torch.no_grad():
            for example, line in pieces:
                ids = torch.tensor([[*example.prompt, *example.answers[0].ids]])
                total += float(model(input_ids=ids, labels=ids).loss) * line["tokens"]
                count += line["tokens"]
        assert world.figures[name] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_tasks_are_measured_before_and_after(copied: Any, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both voices are handed to the harness, with their own attention, the adapter off and on."""
    seen: list[Any] = []

    def measure(model: Any, tokenizer: Any, tasks: Any, *, rows: int, seed: int) -> dict[str, dict[str, float]]:
        with torch.no_grad():
            seen.append(model(input_ids=torch.tensor([[5, 6, 7]])).logits)
        assert (tasks, rows) == (("piqa",), 9)
        scores = {"acc": float(len(seen)), "acc_stderr": 0.25, "em,strict": 0.0, "em_stderr,strict": 0.125}
        return {"piqa": scores}

    monkeypatch.setattr(weights, "harness", types.SimpleNamespace(measure=measure))
    run = copied()
    found = run.evaluate(
        toy.held_out, progress=False, families=["forgetting"], tasks=["piqa"], task_rows=9, neutral=toy.held_out
    )["test"]  # fmt: skip
    assert (found["forgetting/tasks/piqa acc_before"], found["forgetting/tasks/piqa acc"]) == (1.0, 2.0)
    stored = json.loads((run.folder / "evaluation" / "test" / "facts.json").read_text(encoding="utf-8"))
    tasks = stored["families"]["forgetting"]["tables"]["tasks"]
    assert [(line["metric"], line["stderr"]) for line in tasks] == [("acc", 0.25), ("em,strict", 0.125)]
    base = transformers.AutoModelForCausalLM.from_pretrained(toy.model)
    with torch.no_grad():
        torch.testing.assert_close(seen[0], base(input_ids=torch.tensor([[5, 6, 7]])).logits, atol=1e-5, rtol=0)
    assert (seen[1] - seen[0]).abs().max() > 0.1


def test_a_harness_that_is_missing_is_named(copied: Any, toy: Toy) -> None:
    if importlib.util.find_spec("lm_eval") is not None:
        pytest.skip("lm-eval is installed")
    with pytest.raises(ValueError, match=r"grainline\[lm-eval\]"):
        copied().evaluate(toy.held_out, progress=False, families=["forgetting"], tasks=["piqa"])
