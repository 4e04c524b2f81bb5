r"""Edits: only what differs between the two answers speaks.

Guo et al. 2023 (FIGA), arXiv:2311.04072. The better answer is a revision of the worse one. Tokens that the revision
added or replaced weigh ``added``; tokens of the original that it removed or replaced weigh ``removed``; what both
share weighs ``kept``. The end-of-turn token of the better answer weighs ``end`` (the release rewards it always), that
of the worse one ``kept``.

With ``marks=found`` edits are found on token ids by Python's ``difflib.SequenceMatcher``: matching blocks, longest
first. It is deterministic and needs no package; where several scripts exist it may mark a token more than the shortest
(Levenshtein), which the release uses. With ``marks=kept`` they stand in the data: spans of aspect "edit", which the
step ``edits`` of curation writes along a shortest script between words; a token that shares a character with one is
marked.

The weights of the worse answer are positive: how loudly a removed token speaks is said here, that it is to become
unlikelier is the objective's doing (``signed-sft`` for FIGA, ``dpo`` and others as well). A negative weight turns its
token round.

Traps: independent answers share little more than common words; this is for minimal revisions (FIGA's, CLAIR's). Two
answers that tokenise alike leave the end-of-turn token alone to speak.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from grainline.data.fields import EDIT
from grainline.errors import DataError
from grainline.supervision._parts import partners, unplaced
from grainline.types import Answer, AnswerTokens, Example, spec


@spec
class Edits:
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    paper: ClassVar[str] = "arXiv:2311.04072"

    added: float = Field(1.0, allow_inf_nan=False)
    """Weight of tokens that only the better answer has; 1, FIGA's alpha."""
    removed: float = Field(0.5, allow_inf_nan=False)
    """Weight of tokens that only the worse answer has; 0.5, FIGA's beta, whose sign the objective gives."""
    kept: float = Field(0.0, allow_inf_nan=False)
    """Weight of tokens that both have; 0, FIGA's gamma as released."""
    end: float = Field(1.0, allow_inf_nan=False)
    """Weight of the better answer's end-of-turn token; 1 as released."""

    marks: Literal["found", "kept"] = "found"
    """Where edits come from: found = looked for on token ids; kept = the data's spans of aspect edit."""

    def __call__(self, example: Example) -> Example:
        better, worse = partners(example)
        if self.marks == "kept":
            new, old = self._kept(example)
        else:
            new, old = _found(_words(better), _words(worse))
        added = [self.added if mark else self.kept for mark in new]
        removed = [self.removed if mark else self.kept for mark in old]
        added += [self.end] * (len(better.ids) - len(added))
        removed += [self.kept] * (len(worse.ids) - len(removed))
        marked = (better._replace(weight=tuple(added)), worse._replace(weight=tuple(removed)))
        return example._replace(answers=marked)

    def _kept(self, example: Example) -> list[list[bool]]:
        answers = example.record.answers
        if not any(span.aspect == EDIT for answer in answers for span in answer.spans):
            raise DataError(
                f"no span of aspect {EDIT!r}.",
                where=example.record.where,
                instead="Put the data through grainline curate edits, or choose supervision=edits:marks=found.",
            )
        if any(answer.spans and unplaced(tokens) for answer, tokens in zip(answers, example.answers, strict=True)):
            raise DataError(
                "the chat template rewrote an answer, so its marks have no place among the tokens.",
                where=example.record.where,
                instead="Remove the row, or choose supervision=edits:marks=found.",
            )
        return [_overlaps(answer, tokens) for answer, tokens in zip(answers, example.answers, strict=True)]


def _found(better: Sequence[int], worse: Sequence[int]) -> tuple[list[bool], list[bool]]:
    """Whether each id is new, and whether each is gone."""
    new, old = [True] * len(better), [True] * len(worse)
    matcher = difflib.SequenceMatcher(None, worse, better, autojunk=False)
    for at, to, length in matcher.get_matching_blocks():
        old[at : at + length] = new[to : to + length] = [False] * length
    return new, old


def _overlaps(answer: Answer, tokens: AnswerTokens) -> list[bool]:
    """Whether each token of the text shares a character with a mark."""
    marks = [(span.start, span.stop) for span in answer.spans if span.aspect == EDIT]
    offsets = tokens.offsets[: len(_words(tokens))]
    return [any(a < stop and start < b for start, stop in marks) for a, b in offsets]


def _words(answer: AnswerTokens) -> tuple[int, ...]:
    """The ids without the end-of-turn token, which stands for no text."""
    ends = bool(answer.ids) and answer.offsets[-1][0] >= answer.offsets[-1][1]
    return answer.ids[:-1] if ends else answer.ids
