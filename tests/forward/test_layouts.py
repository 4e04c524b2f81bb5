"""The probe: trees where they are exact, a fallback with its reason where not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

from _build import WINDOW, model, questions
from _truth import LAYOUTS
from grainline.data.collate import collate
from grainline.errors import ModelError
from grainline.forward import Scorer, choose_layout, head, probe_length, trees
from grainline.types import Batch, Example


def layouts(examples: list[Example]) -> dict[str, Batch]:
    return {layout: collate(examples, layout=layout) for layout in LAYOUTS}


def test_probe_chooses_trees_where_they_are_exact() -> None:
    scorer = Scorer(model("mistral"))
    chosen = choose_layout(scorer, layouts(questions()), LAYOUTS)
    assert chosen.layout == "tree"
    assert scorer.packed
    assert choose_layout(scorer, layouts(questions()), ["packed", "padded"]).layout == "packed"


def ignore_positions(causal: Any) -> None:
    body = getattr(causal, causal.base_model_prefix)
    own = body.forward
    body.forward = lambda *args, position_ids=None, **kwargs: own(*args, **kwargs)


def test_probe_falls_back_with_its_reason() -> None:
    """Rotary angles are relative: without positions a whole (prompt, answer) is right, a second branch is not."""
    made = model("llama")
    ignore_positions(made)
    scorer = Scorer(made)
    layout, why = choose_layout(scorer, layouts(questions()), LAYOUTS)
    assert layout == "packed"
    assert why.startswith("tree: differs from the plain model by ")
    assert float(why.split(" by ")[1].split()[0]) > 1e-3
    assert "packed: differs from the plain model by" in why
    assert scorer.packed


def test_probe_falls_back_to_padding() -> None:
    """GPT-2's positions are absolute: only padded rows survive without them."""
    made = model("gpt2")
    ignore_positions(made)
    scorer = Scorer(made)
    assert choose_layout(scorer, layouts(questions()), LAYOUTS).layout == "padded"
    assert not scorer.packed
    assert made.config._attn_implementation == "sdpa"


def test_probe_survives_a_model_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise NotImplementedError("no trees today\nsecond line")

    monkeypatch.setattr(trees.Trees, "plan", refuse)
    chosen = choose_layout(Scorer(model("llama")), layouts(questions()), LAYOUTS)
    assert chosen.layout == "padded"
    assert chosen.why.startswith("tree: NotImplementedError: no trees today; packed: NotImplementedError: no trees")
    assert "second line" not in chosen.why


def test_probe_refuses_a_model_it_does_not_understand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_finish", lambda config, logits: 1.5 * logits)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: no layout gives .* tree: differs .* padded: differs"):
        choose_layout(Scorer(model("llama")), layouts(questions()), LAYOUTS)


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_probe_reads_behind_a_learnt_prompt(config: Any) -> None:
    """As where a run goes on from one: the plain model's numbers are those behind the prompt, too."""
    torch.manual_seed(0)
    policy = get_peft_model(model("llama"), config(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    assert choose_layout(Scorer(policy), layouts(questions()), ("padded",)).layout == "padded"


def test_probe_notices_not_a_number() -> None:
    made = model("llama")
    scorer = Scorer(made)
    with torch.no_grad():
        made.model.norm.weight.fill_(math.nan)
    with pytest.raises(ModelError, match="nan nats"):
        choose_layout(scorer, layouts(questions()), LAYOUTS)


def test_probe_is_longer_than_the_window() -> None:
    assert probe_length(model("mistral").config, 512) == WINDOW + 16
    assert probe_length(model("mistral").config, 10) == 10
    assert probe_length(model("llama").config, 512) == 64
