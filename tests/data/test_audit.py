"""What is odd about a tokenizer is said before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grainline.data.audit import audit
from grainline.errors import ModelError


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        ("chatml", ["The chat template writes instructions of its own: 'system You are a helpful assistant. user'."]),
        ("llama3", ["Answers end with '<|eot_id|>', not with EOS '</s>': generation must stop at both."]),
        (
            "gemma",
            [
                "Answers end with '<end_of_turn>', not with EOS '</s>': generation must stop at both.",
                "The chat template refuses system turns.",
            ],
        ),
        ("inst", []),
        ("think", []),
        ("tools", []),
        ("plain", ["The chat template ends a turn with no special token; '</s>' is appended."]),
        ("none", ["The tokenizer has no chat template: only plain-text prompts can be used."]),
    ],
)
def test_each_template_has_its_sentences(tokenizers: Callable[..., Any], name: str, sentences: list[str]) -> None:
    assert audit(tokenizers(name)) == sentences


def test_rewriting_dropping_and_missing_bos(tokenizers: Callable[..., Any]) -> None:
    assert "writes the prompt differently once an answer follows" in audit(tokenizers("rewrites"))[0]
    tokenizer = tokenizers("chatml", add_bos=True, add_eos=True)
    tokenizer.chat_template = (
        "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"
        + (tokenizer.chat_template.split("{% endif %}", 1)[1])
    )
    assert audit(tokenizer) == [
        "The chat template writes no '<s>', which the tokenizer gives to plain texts.",
        "The chat template silently drops system turns.",
    ]
    tokenizer.eos_token = "</s>"
    assert audit(tokenizer)[0] == "The tokenizer ends each text with EOS; plain-text prompts are encoded without it."


def test_a_tokenizer_that_cannot_serve_is_an_error(tokenizers: Callable[..., Any]) -> None:
    tokenizer = tokenizers()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no EOS token"):
        audit(tokenizer)
