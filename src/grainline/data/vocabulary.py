"""What a tokenizer adds by itself, and which of its tokens are no text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grainline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def added_before(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer puts before a plain text by itself, after checking that it can serve at all.

    What it may put *after* (an EOS) is left out: a prompt that has ended asks for no answer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so tokens cannot be traced to characters.",
            instead="Load it with AutoTokenizer (use_fast=True); of a processor, pass processor.tokenizer.",
        )
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no EOS token, so answers would never end.", instead="Set eos_token.")
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    count = next((n for n in range(len(whole)) if whole[n : n + len(plain)] == plain), 0)
    return tuple(whole[:count])


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Special tokens by id, without UNK: that one stands for text."""
    flagged = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}
    return {id: str(tokenizer.convert_ids_to_tokens(id)) for id in {*tokenizer.all_special_ids, *flagged} - unknown}
