"""The answer's words are found in what the template writes, wherever it puts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grainline.data.columns import record
from grainline.data.template import Rendered, render
from grainline.errors import DataError

SPECIALS = ("<|im_end|>", "<|eot_id|>", "</s>", "<end_of_turn>")


def rendered(tokenizer: Any, said: str, **row: Any) -> Rendered:
    one = {"prompt": [{"role": "user", "content": "Hm?"}], "chosen": said, "rejected": "Never."} | row
    return render(tokenizer, record(one, where="a:1", id="a"), SPECIALS)


@pytest.mark.parametrize("said", ["Yes.", " Yes. \n", "think", "t", "<|im_end|>", "a <|im_end|> a", "\n"])
@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "inst", "think", "plain"])
def test_words_are_found(tokenizers: Callable[..., Any], name: str, said: str) -> None:
    if not said.strip():
        said = f"a{said}b"
    suffix = rendered(tokenizers(name), said).answers[0]
    assert suffix.found
    words = suffix.text[suffix.start : suffix.stop]
    assert said[suffix.lead :].startswith(words)
    assert words.strip() == said.strip()
    before, after = suffix.text[: suffix.start].strip(), suffix.text[suffix.stop :].strip()
    assert before == ("<think>\n\n</think>" if name == "think" else "")
    assert after in ("", *SPECIALS)


def test_text_prompts_go_through_no_template(tokenizers: Callable[..., Any]) -> None:
    one = record({"prompt": "The sky is", "chosen": " blue", "rejected": " green"}, where="a:1", id="a")
    found = render(tokenizers("chatml"), one, SPECIALS)
    assert (found.prompt, found.answers[0].text, found.chat) == ("The sky is", " blue", False)


def test_rewritten_words_are_not_found_and_refuse_spans(tokenizers: Callable[..., Any]) -> None:
    tokenizer = tokenizers("chatml")
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'] | upper")
    assert not rendered(tokenizer, "Yes.").answers[0].found
    with pytest.raises(DataError, match=r"^a:1: the chat template rewrites this answer, so its spans cannot be placed"):
        rendered(tokenizer, "Yes.", chosen_spans=[{"start": 0, "end": 2}])
