"""What is odd about a tokenizer and its chat template, said before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grainline.data import template
from grainline.data.encode import Encoder
from grainline.data.vocabulary import special_tokens
from grainline.errors import DataError, ModelError
from grainline.types import Answer, Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION, _ANSWER, _ORDER = "Which question?", "This answer.", "Follow this order."


def audit(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """One sentence for each thing that a user should know; ModelError if the tokenizer cannot be used at all."""
    encoder = Encoder(tokenizer, max_length=4096)
    found = []
    around = tokenizer("a")["input_ids"]
    if len(around) > 1 and around[-1] == tokenizer.eos_token_id:
        found.append("The tokenizer ends each text with EOS; plain-text prompts are encoded without it.")
    if not tokenizer.chat_template:
        return [*found, "The tokenizer has no chat template: only plain-text prompts can be used."]
    record = Record("audit", ({"role": "user", "content": _QUESTION},), (Answer(_ANSWER),), label=True)
    try:
        example = encoder(record)
    except (DataError, ModelError) as error:
        return [*found, str(error)]
    return [
        *found,
        *_beginning(tokenizer, record),
        *_end(tokenizer, record, example.answers[0].ids),
        *_orders(tokenizer),
    ]


def _beginning(tokenizer: PreTrainedTokenizerBase, record: Record) -> list[str]:
    found = []
    text = template.conversation(tokenizer, record, record.prompt, speak=True)  # type: ignore[arg-type]
    head = text.split(_QUESTION)[0]
    for special in special_tokens(tokenizer).values():
        head = head.replace(special, " ")
    if len(head.split()) > 4:  # more than role names
        found.append(f"The chat template writes instructions of its own: {' '.join(head.split())!r}.")
    ids, plain = tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and plain[0] == bos and ids[0] != bos:
        found.append(f"The chat template writes no {tokenizer.bos_token!r}, which the tokenizer gives to plain texts.")
    return found


def _end(tokenizer: PreTrainedTokenizerBase, record: Record, answer: tuple[int, ...]) -> list[str]:
    whole = template.render(tokenizer, record, special_tokens(tokenizer).values()).answers[0]
    end = str(tokenizer.convert_ids_to_tokens(answer[-1]))
    if end not in whole.text[whole.stop :]:
        return [f"The chat template ends a turn with no special token; {tokenizer.eos_token!r} is appended."]
    if answer[-1] != tokenizer.eos_token_id:
        return [f"Answers end with {end!r}, not with EOS {tokenizer.eos_token!r}: generation must stop at both."]
    return []


def _orders(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    turns = ({"role": "system", "content": _ORDER}, {"role": "user", "content": _QUESTION})
    try:
        text = template.conversation(tokenizer, Record("audit", turns, ()), turns, speak=True)
    except DataError:
        return ["The chat template refuses system turns."]
    return [] if _ORDER in text else ["The chat template silently drops system turns."]
