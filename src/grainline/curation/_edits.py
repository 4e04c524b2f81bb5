"""What a revision changed: the words of two texts, a shortest edit script from one to the other, and how long it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Unit = Literal["words", "characters"]
Places = tuple[tuple[int, int], ...]
"""[start, stop) in characters."""

_UNITS = {"words": re.compile(r"\w+(?:['’]\w+)*|[^\w\s]"), "characters": re.compile(r"\S")}


class Changes(NamedTuple):
    """From an initial text to a revised one."""

    removed: Places  # of the initial text: what the revision deleted or replaced
    added: Places  # of the revised text: what it inserted or put in place of something
    distance: int  # Levenshtein's, in words: deletions, insertions and replacements
    longest: int  # words of the longer text

    @property
    def share(self) -> float:
        """0 = the same words; 1 = no word in its place."""
        return self.distance / self.longest if self.longest else 0.0


def changes(initial: str, revised: str, unit: Unit = "words") -> Changes:
    """A shortest edit script between the words and punctuation marks of two texts; white space is neither.

    Where several scripts are as short, rapidfuzz decides, always alike.

    >>> changes("It is 5, so stop.", "It is 4, so do stop.")
    Changes(removed=((6, 7),), added=((6, 7), (12, 14)), distance=2, longest=8)
    """
    from rapidfuzz.distance import Levenshtein

    old, new = places(initial, unit), places(revised, unit)
    script = Levenshtein.opcodes(_words(initial, old), _words(revised, new))
    removed, added, distance = set[int](), set[int](), 0
    for one in script:
        if one.tag != "equal":
            gone, come = range(one.src_start, one.src_end), range(one.dest_start, one.dest_end)
            removed.update(gone)
            added.update(come)
            distance += max(len(gone), len(come))
    return Changes(_runs(old, removed), _runs(new, added), distance, max(len(old), len(new)))


def places(text: str, unit: Unit = "words") -> Places:
    """Where the words and punctuation marks of a text stand, or all its characters that are no white space."""
    return tuple(found.span() for found in _UNITS[unit].finditer(text))


def _words(text: str, found: Places) -> list[str]:
    return [text[start:stop] for start, stop in found]


def _runs(found: Sequence[tuple[int, int]], marked: Iterable[int]) -> Places:
    """Marked words as stretches; neighbours are one, with the white space between them."""
    runs: list[tuple[int, int, int]] = []  # from, to, last word
    for n in sorted(marked):
        start, stop = found[n]
        if runs and runs[-1][2] == n - 1:
            runs[-1] = (runs[-1][0], stop, n)
        else:
            runs.append((start, stop, n))
    return tuple((start, stop) for start, stop, _ in runs)
