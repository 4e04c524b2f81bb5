r"""Scores that need no model: length, readability, sentiment, a pattern, the right answer.

For tests, demonstrations and answers that can be checked. A piece with :math:`n` words and target :math:`t`:

===============  ================================================================  ===========
measure          score                                                             between
===============  ================================================================  ===========
``length``       near: min(n, t) / max(n, t); longer: min(1, n / t);               0, 1
                 shorter: min(1, t / n)
``readability``  1 up to grade t, 0 from ten grades above; Coleman and Liau's      0, 1
                 grade, 5.88 letters/words - 29.6 sentences/words - 15.8
``sentiment``    polarity of TextBlob's lexicon (Pattern's, MIT)                   -1, 1
``match``        present: min(1, k / t) of k matches; absent: max(0, 1 - k / t)    0, 1
``exact``        1 where the piece says the right answer, 0 where another          0, 1
===============  ================================================================  ===========

Readability is Coleman and Liau's (1975) and not Flesch's, because letters can be counted and syllables cannot: the
dictionaries that know them are under other licenses. A rule knows no aspects: it says the same of each. A piece
without a word is NaN.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from grainline.errors import DataError, SpecError
from grainline.rewards._seam import Asked, Desk, Prompt, Scores
from grainline.types import spec

_WORD = re.compile(r"\w+(?:['’]\w+)*")
GRADES = 10
"""School years between a text that is easy enough and one that is not at all."""


@spec
class Rules:
    needs: ClassVar[frozenset[str]] = frozenset()

    measure: Literal["length", "readability", "sentiment", "match", "exact"] = "length"
    """What is measured, see the table."""
    target: float | None = Field(None, gt=0)
    """t: words (length; 100), school grade (readability; 8), matches (match; 1). null = the number in brackets."""
    better: Literal["near", "longer", "shorter"] = "near"
    """Of length: which side of the target is as good as the target itself; near = neither."""
    pattern: str = ""
    """A regular expression. match counts it; exact reads the last that it finds in a piece (group 1, if it has one)."""
    want: Literal["present", "absent"] = "present"
    """Of match: whether it is good or bad."""
    answer: str | int | float = ""
    """Of exact: the right answer, one for all prompts."""
    answers: str = ""
    """Of exact: a .jsonl file of rows with ``prompt`` (its last turn's text) and ``answer``; other prompts are NaN."""
    language: str = Field("en", pattern="^[a-z]{2,3}(-[A-Za-z]+)*$")
    """Of the sentences that readability counts."""

    @field_validator("pattern")
    @classmethod
    def _pattern_can_be_read(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _options_are_read(self) -> Rules:
        read = {
            "target": ("length", "readability", "match"),
            "better": ("length",),
            "pattern": ("match", "exact"),
            "want": ("match",),
            "answer": ("exact",),
            "answers": ("exact",),
            "language": ("readability",),
        }
        for option, measures in read.items():
            default = Rules.__dataclass_fields__[option].default
            default = getattr(default, "default", default)
            if getattr(self, option) != default and self.measure not in measures:
                raise ValueError(f"{option} is read with measure={' or '.join(measures)} only")
        if self.measure == "match" and not self.pattern:
            raise ValueError("measure=match counts a pattern: say which")
        if self.measure == "exact" and (self.answer == "") == (self.answers == ""):
            raise ValueError("measure=exact needs answer or answers, and not both")
        return self

    @property
    def between(self) -> tuple[float, float]:
        return (-1.0, 1.0) if self.measure == "sentiment" else (0.0, 1.0)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.answers,) if self.answers else ()

    @contextlib.contextmanager
    def open(self, desk: Desk) -> Iterator[Ruled]:
        yield Ruled(self._rule())

    def _rule(self) -> Rule:
        if self.measure == "length":
            return lambda piece, _: _length(piece, self.target or 100, self.better)
        if self.measure == "readability":
            return lambda piece, _: _readability(piece, self.target or 8, self.language)
        if self.measure == "sentiment":
            return _sentiment()
        if self.measure == "match":
            return lambda piece, _: _match(piece, self.pattern, self.target or 1, self.want)
        known = _answers(self.answers) if self.answers else {}
        right = (lambda prompt: known.get(_asked(prompt))) if self.answers else (lambda _: str(self.answer))
        return lambda piece, prompt: _exact(piece, self.pattern, right(prompt))


Rule = Callable[[str, Prompt], float]
"""A piece and the prompt before it -> its score."""


class Ruled:
    """Rules at work."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        for one in asked:
            said = [self.rule(one.answer[start:stop], one.prompt) for start, stop in one.pieces]
            yield Scores(tuple((value,) * len(one.aspects) for value in said))


def _length(piece: str, target: float, better: str) -> float:
    words = len(_WORD.findall(piece))
    if not words:
        return math.nan
    ratio = words / target
    return min(ratio, 1 / ratio) if better == "near" else min(1.0, ratio if better == "longer" else 1 / ratio)


def _readability(piece: str, target: float, language: str) -> float:
    from grainline.data.sentences import sentences

    words = _WORD.findall(piece)
    if not words:
        return math.nan
    letters = sum(char.isalnum() for word in words for char in word)
    grade = 5.88 * letters / len(words) - 29.6 * (len(sentences(piece, language)) - 1) / len(words) - 15.8
    return min(1.0, max(0.0, 1 - (grade - target) / GRADES))


def _sentiment() -> Rule:
    try:
        from textblob.en import sentiment  # its lexicon comes with it: no corpus is downloaded
    except ImportError as error:
        raise SpecError(
            f"measure=sentiment needs TextBlob: {error}.", where="rules", instead="pip install 'grainline[rules]'."
        ) from error
    return lambda piece, _: float(sentiment(piece)[0]) if _WORD.search(piece) else math.nan


def _match(piece: str, pattern: str, target: float, want: str) -> float:
    if not piece.strip():
        return math.nan
    share = min(1.0, sum(1 for _ in re.finditer(pattern, piece)) / target)
    return share if want == "present" else 1 - share


def _exact(piece: str, pattern: str, right: str | None) -> float:
    if right is None or not piece.strip():
        return math.nan
    found = list(re.finditer(pattern, piece)) if pattern else []
    said = piece if not pattern else (found[-1][1 if found[-1].re.groups else 0] or "") if found else ""
    return float(_plain(said) == _plain(right))


def _plain(said: str) -> str:
    """Case, outer marks and the width of spaces decide nothing."""
    return " ".join(said.casefold().split()).strip(" .!?\"'")


def _asked(prompt: Prompt) -> str:
    """What a prompt asks, as the file of answers names it."""
    words = prompt if isinstance(prompt, str) else str(prompt[-1].get("content") or "")
    return " ".join(words.split())


def _answers(path: str) -> dict[str, str]:
    file, found = Path(os.path.expanduser(path)), {}
    if not file.is_file():
        raise SpecError("no such file.", where=f"rules:answers {path}", instead="Give a .jsonl file.")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                found[_asked(str(row["prompt"]))] = str(row["answer"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    "not a row with prompt and answer.", where=f"{file.name}:{number}", instead='Write {"prompt": ...}.'
                ) from error
    return found
