"""What a tokenizer adds by itself, and which tokens are no text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grainline.data.vocabulary import added_before, special_tokens


@pytest.mark.parametrize("metaspace", [False, True])
@pytest.mark.parametrize("add_eos", [False, True])
@pytest.mark.parametrize("add_bos", [False, True])
def test_bos_is_kept_and_eos_is_not(
    tokenizers: Callable[..., Any], add_bos: bool, add_eos: bool, metaspace: bool
) -> None:
    tokenizer = tokenizers("none", add_bos=add_bos, add_eos=add_eos, metaspace=metaspace)
    assert added_before(tokenizer) == ((tokenizer.bos_token_id,) if add_bos else ())


def test_unknown_is_text_unless_it_is_also_eos(tokenizers: Callable[..., Any]) -> None:
    tokenizer = tokenizers("llama3")
    assert set(special_tokens(tokenizer).values()) >= {"<s>", "</s>", "<|eot_id|>", "<end_of_turn>"}
    assert "<unk>" not in special_tokens(tokenizer).values()
    tokenizer.eos_token = "<unk>"  # as GPT-2, where one token is everything
    assert "<unk>" in special_tokens(tokenizer).values()
