r"""Edits: only what differs between the two answers speaks.

Guo et al. 2023 (FIGA), arXiv:2311.04072. The better answer is a revision of the worse one. Tokens that the revision
added or replaced weigh ``added``; tokens of the original that it removed or replaced weigh ``removed``; what both
share weighs ``kept``. The end-of-turn token of the better answer weighs ``end`` (the release rewards it always), that
of the worse one ``kept``.

Edits are found on token ids by Python's ``difflib.SequenceMatcher``: matching blocks, longest first. It is
deterministic and needs no package; where several scripts exist it may mark a token more than the shortest
(Levenshtein), which the release uses. The weights of the worse answer are positive: how loudly a removed token speaks
is said here, that it is to become unlikelier is the objective's doing (``signed-sft`` for FIGA, ``dpo`` and others as
well). A negative weight turns its token round.

Traps: independent answers share little more than common words; this is for minimal revisions (FIGA's, CLAIR's). Two
answers that tokenise alike leave the end-of-turn token alone to speak.
"""

from __future__ import annotations

import difflib
from typing import ClassVar

from pydantic import Field

from grainline.supervision._parts import partners
from grainline.types import AnswerTokens, Example, spec


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

    def __call__(self, example: Example) -> Example:
        better, worse = partners(example)
        matcher = difflib.SequenceMatcher(None, _words(worse), _words(better), autojunk=False)
        added, removed = [self.added] * len(better.ids), [self.removed] * len(worse.ids)
        for at, to, length in matcher.get_matching_blocks():
            removed[at : at + length] = added[to : to + length] = [self.kept] * length
        added[len(_words(better)) :] = [self.end] * (len(better.ids) - len(_words(better)))
        removed[len(_words(worse)) :] = [self.kept] * (len(worse.ids) - len(_words(worse)))
        marked = (better._replace(weight=tuple(added)), worse._replace(weight=tuple(removed)))
        return example._replace(answers=marked)


def _words(answer: AnswerTokens) -> tuple[int, ...]:
    """The ids without the end-of-turn token, which stands for no text."""
    ends = bool(answer.ids) and answer.offsets[-1][0] >= answer.offsets[-1][1]
    return answer.ids[:-1] if ends else answer.ids
