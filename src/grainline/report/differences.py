"""Two answers -> the same answers with the words marked in which they differ."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

LEAST = 0.2
"""Of all words, the share that two answers must have in common for marks to say anything."""
LONGEST = 4_000
"""Words (spaces count) beyond which nothing is compared: the time grows with the square."""

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


class Part(NamedTuple):
    text: str
    differs: bool  # not in the other answer


def marked(one: str, other: str) -> tuple[list[Part], list[Part], float]:
    """Both texts in parts, and the share of their words that they have in common (1.0: the same).

    >>> marked("so it is", "so it was")
    ([Part(text='so it ', differs=False), Part(text='is', differs=True)], [Part(text='so it ', differs=False), \
Part(text='was', differs=True)], 0.6666666666666666)
    """
    ours, theirs = _WORDS.findall(one), _WORDS.findall(other)
    if max(len(ours), len(theirs)) > LONGEST:
        return [Part(one, False)], [Part(other, False)], float("nan")
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    blocks = matcher.get_matching_blocks()
    share = _share(ours, theirs, [word for block in blocks for word in ours[block.a : block.a + block.size]])
    if share < LEAST:
        return [Part(one, False)], [Part(other, False)], share
    return _parts(ours, [(b.a, b.size) for b in blocks]), _parts(theirs, [(b.b, b.size) for b in blocks]), share


def _share(ours: list[str], theirs: list[str], common: list[str]) -> float:
    said, shared = (sum(not word.isspace() for word in words) for words in (ours + theirs, common))
    return 2 * shared / said if said else 1.0


def _parts(words: list[str], same: list[tuple[int, int]]) -> list[Part]:
    found, at = [], 0
    for start, size in same:
        found += [Part("".join(words[at:start]), True), Part("".join(words[start : start + size]), False)]
        at = start + size
    return [part for part in found if part.text]
