"""What is odd about one record that can be used all the same."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from grainline.data.problems import Problem
from grainline.data.vocabulary import special_tokens
from grainline.types import Answer, Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = "a special token stands in the text"
OVERLAP = "spans of one aspect overlap"
BARELY = "chosen and rejected differ only in white space or case"

COMMON_MARKS = re.compile(
    r"<\|[A-Za-z][\w ]{0,30}\|>|<\|(?:begin|end)▁of▁sentence\|>|</s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
)
"""What many tokenizers take for a special token: looked for where no tokenizer is given."""


def marks_of(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """A pattern of this tokenizer's special tokens."""
    tokens = sorted(special_tokens(tokenizer).values(), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens)))


def sides(record: Record) -> tuple[str, ...]:
    """What the record's answers are called in its row."""
    return ("chosen", "rejected") if record.is_pair else ("completion",)


def odd(record: Record, marks: re.Pattern[str]) -> Iterator[Problem]:
    """Warnings about one record."""
    where = record.where or record.id
    yield from _marks(record, marks, where)
    for name, answer in zip(sides(record), record.answers, strict=True):
        yield from _overlap(answer, f"{where} {name}")
    if record.is_pair and not any(answer.messages for answer in record.answers):
        left, right = (" ".join(answer.text.casefold().split()) for answer in record.answers)
        if left == right:
            yield Problem(
                BARELY, "warning", where, f"{BARELY}.", "Remove the row, unless that is what shall be learnt."
            )


def _marks(record: Record, marks: re.Pattern[str], where: str) -> Iterator[Problem]:
    turns = (record.prompt,) if isinstance(record.prompt, str) else (t.get("content") or "" for t in record.prompt)
    texts = [("prompt", "\n".join(turns)), *zip(sides(record), (a.text for a in record.answers), strict=True)]
    for name, text in texts:
        found = marks.search(text)
        if found:
            what = f"{found.group()!r} stands in the text, where the model reads a special token."
            yield Problem(MARKS, "warning", f"{where} {name}", what, "Remove it, or write it otherwise.")


def _overlap(answer: Answer, where: str) -> Iterator[Problem]:
    """The first overlap of two spans with one aspect."""
    spans = sorted(answer.spans, key=lambda span: (span.aspect, span.start, span.stop))
    for one, two in itertools.pairwise(spans):
        if one.aspect == two.aspect and two.start < one.stop:
            what = (
                f"spans of {one.aspect!r} overlap in characters {two.start} to {min(one.stop, two.stop)}: "
                f"[{one.start}, {one.stop}] and [{two.start}, {two.stop}]."
            )
            yield Problem(
                OVERLAP, "warning", where, what, "Merge or part them; where they overlap scores are averaged."
            )
            return
