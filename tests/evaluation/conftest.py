"""The voices of the small world: its random Llama with a shaken adapter on and off, float64, and its tokenizer."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers

from _build import adapted
from _toy import Toy
from grainline.evaluation.speakers import Speaker, Subject
from grainline.forward import Scorer


@pytest.fixture
def voices(toy: Toy) -> Subject:
    base = transformers.AutoModelForCausalLM.from_pretrained(toy.model, dtype=torch.float64).eval()
    scorer = Scorer(adapted(base)).eval()
    policy: Any = scorer.model
    return Subject(
        Speaker("policy", scorer, nullcontext),
        Speaker("reference", scorer, policy.disable_adapter),
        transformers.AutoTokenizer.from_pretrained(toy.model),
        layout="tree",
    )
