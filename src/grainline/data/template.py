"""A record as text: what the chat template makes of its prompt and of each answer. No token is counted here.

The prompt is rendered as inference renders it (``add_generation_prompt=True``). An answer is what the template writes
after it when the conversation goes on with that answer, so the whole is the template's own text, rendered once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from grainline.data.chat import Messages
from grainline.errors import DataError, ModelError
from grainline.types import Answer, Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Suffix(NamedTuple):
    """The text after the prompt, and where the answer's own words stand in it."""

    text: str
    start: int  # characters into text: the answer's words, without what the template adds
    stop: int
    lead: int  # characters of Answer.text before the words: templates may strip them
    found: bool  # False: the template rewrote the words, or the answer is several turns


class Rendered(NamedTuple):
    """One record as text; ``chat`` says whether a template wrote it."""

    prompt: str
    answers: tuple[Suffix, ...]
    chat: bool


def render(tokenizer: PreTrainedTokenizerBase, record: Record, specials: Collection[str]) -> Rendered:
    """``record`` as text; ``specials`` are the tokenizer's special tokens, which end turns."""
    if isinstance(record.prompt, str):
        texts = tuple(Suffix(a.text, 0, len(a.text), 0, True) for a in record.answers)
        return Rendered(record.prompt, texts, chat=False)
    prompt = conversation(tokenizer, record, record.prompt, speak=True)
    answers = tuple(_suffix(tokenizer, record, prompt, a, specials) for a in record.answers)
    return Rendered(prompt, answers, chat=True)


def conversation(tokenizer: PreTrainedTokenizerBase, record: Record, turns: Messages, *, speak: bool) -> str:
    """Chat turns through the tokenizer's template; ``speak`` asks for the assistant's turn at the end."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template, and this prompt is chat turns.",
            where=record.where or record.id,
            instead="Use an instruct model, set tokenizer.chat_template, or write prompts as plain text.",
        )
    options: Mapping[str, Any] = record.template or {}
    try:
        return tokenizer.apply_chat_template(  # type: ignore[return-value]
            [dict(turn) for turn in turns],
            tools=[dict(tool) for tool in record.tools] if record.tools else None,
            add_generation_prompt=speak,
            tokenize=False,
            **options,
        )
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"the chat template refuses this row: {str(error).rstrip('.')}.",
            where=record.where or record.id,
            instead=f"Its turns are: {', '.join(str(turn['role']) for turn in turns)}.",
        ) from error


def _suffix(
    tokenizer: PreTrainedTokenizerBase, record: Record, prompt: str, answer: Answer, specials: Collection[str]
) -> Suffix:
    assert not isinstance(record.prompt, str)
    said = answer.messages or ({"role": "assistant", "content": answer.text},)
    whole = conversation(tokenizer, record, (*record.prompt, *said), speak=False)
    if not whole.startswith(prompt):
        _refuse_rewriting(record, prompt, whole)
    text = whole[len(prompt) :]
    if not answer.messages:
        for words in dict.fromkeys((answer.text, answer.text.strip(), answer.text.rstrip(), answer.text.lstrip())):
            start = _place(words, text, specials)
            if start >= 0:
                return Suffix(text, start, start + len(words), answer.text.index(words), True)
        if answer.spans:
            raise DataError(
                "the chat template rewrites this answer, so its spans cannot be placed.",
                where=record.where or record.id,
                instead="Remove the spans, or write the answer as the template does.",
            )
    return Suffix(text, 0, len(text.rstrip()), 0, False)


def _place(words: str, text: str, specials: Collection[str]) -> int:
    """Where ``words`` stand in ``text``: the first place that the end of the turn follows, else the first of all."""
    first = place = text.find(words)
    while place >= 0:
        rest = text[place + len(words) :].lstrip()
        if not rest or any(rest.startswith(special) for special in specials):
            return place
        place = text.find(words, place + 1)
    return first


def _refuse_rewriting(record: Record, prompt: str, whole: str) -> None:
    """The prompt at inference is not what stands before the answer, so no answer could be trained in its place."""
    same = next((n for n, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole))
    raise ModelError(
        f"the chat template writes the prompt differently once an answer follows: {prompt[same : same + 40]!r} "
        f"becomes {whole[same : same + 40]!r}.",
        where=record.where or record.id,
        instead="Set chat_template_kwargs (such as enable_thinking) so that both agree, or use a template that does.",
    )
