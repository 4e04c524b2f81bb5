"""Where the sentences of a text are. Shared by the supervision ``segments`` and the curation step ``segment``."""

from __future__ import annotations

import functools
import itertools
import re

CODE = re.compile(
    r"^[^\S\n]*(?P<fence>```+|~~~+)[^`\n]*\n.*?(?:^[^\S\n]*(?P=fence)[^\S\n]*(?:\n|\Z)|\Z)", re.MULTILINE | re.DOTALL
)
"""A fenced code block, closed or not."""

_ENDS = re.compile(r"\b(?:No|OK|me|May)(?=\.\s+[^\W\d])")
_SAYS = re.compile(r"\S")
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")


def sentences(text: str, language: str = "en") -> tuple[int, ...]:
    """Where sentences begin: characters, the first 0, and ``len(text)`` at the end. A fenced code block is one.

    Nothing is lost or moved: ``text[a:b]`` of neighbours are the text. White space goes with what stands before it.
    By sentencex (Wikimedia, MIT), chosen by ``bench/segmentation.py``; it knows some 240 languages by their codes.
    """
    cuts, at = {0, len(text)}, 0
    for code in CODE.finditer(text):
        cuts |= {*_plain(text[at : code.start()], at, language), code.start(), code.end()}
        at = code.end()
    cuts |= {*_plain(text[at:], at, language)}
    inside = {_word(text, cut) for cut in cuts} - {_word(text, 0), len(text)}
    return tuple(sorted({0, *inside, len(text)}))


def _plain(text: str, start: int, language: str) -> list[int]:
    # Only lengths are read, so sentencex may be shown something easier: it panics on spaces of several bytes, and
    # takes "No." for "number" wherever it stands.
    shown = _WIDE_SPACE.sub(" ", text)
    shown = _ENDS.sub(lambda word: "x" * len(word[0]), shown) if language == "en" else shown
    found = [len(part) for part in _segmenter()(language, shown)] if text else []
    if sum(found) != len(text):
        raise RuntimeError(f"sentencex has lost {len(text) - sum(found)} characters of {text[:80]!r}")
    return [start + length for length in itertools.accumulate(found, initial=0)]


@functools.cache
def _segmenter():  # type: ignore[no-untyped-def]
    from sentencex import segment

    return segment


def _word(text: str, at: int) -> int:
    """The first character from ``at`` on that is no white space."""
    found = _SAYS.search(text, at)
    return found.start() if found else len(text)
