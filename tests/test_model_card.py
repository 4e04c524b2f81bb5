"""The model card of an adapter that stands by itself."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from _build import adapted, model
from grainline.model_card import model_card


@pytest.mark.parametrize("merged", [False, True])
def test_it_names_a_base_on_the_hub_and_what_it_is(merged: bool) -> None:
    base: Any = model("llama")
    base.name_or_path = "someone/tiny"
    said = model_card(adapted(base), methods=["dpo", "lora", "dpo"], merged=merged, facts={"relative_error": 0.5})
    head = yaml.safe_load(said.split("---")[1])
    assert head == {
        "base_model": "someone/tiny",
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["grainline", "dpo", "lora"],
    }
    assert "relative error: 0.5" in said
