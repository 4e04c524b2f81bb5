"""Marked words: both texts come back whole, and what is unmarked is common to both."""

from __future__ import annotations

import doctest
import math
import random

import pytest

from grainline.report import differences
from grainline.report.differences import Part, marked


def test_examples() -> None:
    found = doctest.testmod(differences)
    assert found.attempted == 1
    assert not found.failed


def test_texts_come_back_whole_and_unmarked_parts_are_common() -> None:
    rng = random.Random(0)
    for _ in range(50):
        one, other = (" ".join(rng.choice("abcd") for _ in range(rng.randint(0, 20))) for _ in range(2))
        ours, theirs, share = marked(one, other)
        assert "".join(part.text for part in ours) == one
        assert "".join(part.text for part in theirs) == other
        common = ["".join(part.text for part in parts if not part.differs) for parts in (ours, theirs)]
        if share >= differences.LEAST:
            assert common[0] == common[1]
        assert 0 <= share <= 1


@pytest.mark.parametrize("text", ["", "so", "a\n\n b", "\ud800 \u202e <b>"])
def test_the_same_is_unmarked(text: str) -> None:
    ours, theirs, share = marked(text, text)
    assert share == 1
    assert not any(part.differs for part in ours + theirs)


def test_nothing_is_marked_where_marks_say_nothing() -> None:
    assert marked("so it is", "why not now")[0] == [Part("so it is", False)]
    long = "a " * differences.LONGEST
    assert math.isnan(marked(long, "a")[2])
