"""Edits against FIGA's release, and against a Levenshtein distance written here."""

from __future__ import annotations

import random

import pytest

from _answers import GOLDEN
from grainline import rooms
from grainline.errors import DataError
from grainline.recipe import presets
from grainline.types import Answer, AnswerTokens, Example, Record, Span


def marked(better: list[int], worse: list[int], text: str = "edits", end: int = 1) -> tuple[tuple[float, ...], ...]:
    """Weights of both answers, each closed by an end-of-turn token that covers no text."""
    tokens = tuple(
        AnswerTokens((*ids, end), (*((n, n + 1) for n in range(len(ids))), (len(ids),) * 2), (7.0,) * (len(ids) + 1))
        for ids in (better, worse)
    )
    example = Example(Record("r", "Why?", (Answer("x"), Answer("y"))), (1,), tokens)
    return tuple(answer.weight for answer in rooms.parse("supervision", text)(example).answers)


def test_by_hand() -> None:
    """b is replaced by x, c removed, y added at the end."""
    better, worse = marked([10, 20, 13, 21], [10, 11, 12, 13])
    assert better == (0, 1, 0, 1, 1)
    assert worse == (0, 0.5, 0.5, 0, 0)


def test_the_release() -> None:
    """FIGA's own masks of its example."""
    figa = GOLDEN["figa"]
    revised, raw = (
        [token for token in figa[f"{name}_labels"] if token not in (-100, figa["eos"])] for name in ("revised", "raw")
    )
    better, worse = marked(revised, raw, end=figa["eos"])
    assert list(better) == [float(mark == 1) for mark in figa["mask_revised"][2:]]
    assert list(worse) == [0.5 * (mark == -1) for mark in figa["mask_raw"][2:7]]


def levenshtein(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        diagonal, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            diagonal, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, diagonal + (x != y))
    return row[-1]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_kept_is_common_and_edits_are_few(seed: int) -> None:
    """Kept tokens read alike on both sides; a revision of few edits has few marks (difflib is not minimal: twice)."""
    rng = random.Random(seed)
    worse = [rng.randrange(2, 40) for _ in range(30)]
    better = list(worse)
    for _ in range(3):
        better[rng.randrange(len(better))] = rng.randrange(40, 60)
        better.insert(rng.randrange(len(better)), rng.randrange(40, 60))
    added, removed = marked(better, worse)
    shared = [token for token, weight in zip(better, added, strict=False) if not weight]
    assert shared == [token for token, weight in zip(worse, removed[:-1], strict=True) if not weight]
    marks = max(sum(map(bool, added[:-1])), sum(map(bool, removed)))
    assert marks <= 2 * levenshtein(worse, better)


def test_nothing_changed_leaves_the_end_alone() -> None:
    assert marked([5, 6], [5, 6]) == ((0, 0, 1), (0, 0, 0))


def test_an_answer_that_was_cut_has_no_end() -> None:
    tokens = AnswerTokens((5, 6), ((0, 1), (1, 2)), (1.0, 1.0))
    example = Example(Record("r", "Why?", (Answer("ab"), Answer("a"))), (1,), (tokens, tokens._replace(ids=(5, 7))))
    better, worse = rooms.parse("supervision", "edits")(example).answers
    assert (better.weight, worse.weight) == ((0, 1), (0, 0.5))


def test_figa_is_edits_and_signed_sft() -> None:
    assert dict(presets()["figa"].choices) == {"supervision": "edits", "objective": "signed-sft"}


def test_option_added() -> None:
    assert marked([5, 9], [5, 8], "edits:added=2")[0] == (0, 2, 1)


def test_option_removed() -> None:
    assert marked([5, 9], [5, 8], "edits:removed=-0.25")[1] == (0, -0.25, 0)


def test_option_kept() -> None:
    assert marked([5, 9], [5, 8], "edits:kept=0.1") == ((0.1, 1, 1), (0.1, 0.5, 0.1))


def test_option_end() -> None:
    assert marked([5, 9], [5, 8], "edits:end=0")[0] == (0, 1, 0)


def spanned(better: tuple[Span, ...], worse: tuple[Span, ...], offsets: tuple[tuple[int, int], ...]) -> Example:
    tokens = AnswerTokens(tuple(range(len(offsets))), offsets, (1.0,) * len(offsets))
    record = Record("r", "Why?", (Answer("abcdef", better), Answer("abxyef", worse)), where="f:3")
    return Example(record, (1,), (tokens, tokens))


def test_option_marks() -> None:
    """Kept marks are read from the data's spans of aspect "edit", and from no others."""
    kept = rooms.parse("supervision", "edits:marks=kept")
    offsets = ((0, 2), (2, 3), (3, 6), (6, 6))
    edit, other = Span(3, 4, "edit", 1.0), Span(0, 6, "truth", 0.0)
    better, worse = kept(spanned((edit, other), (other,), offsets)).answers
    assert (better.weight, worse.weight) == ((0, 0, 1, 1), (0, 0, 0, 0))
    with pytest.raises(DataError, match=r"f:3: no span of aspect 'edit'.*grainline curate edits"):
        kept(spanned((other,), (), offsets))
    with pytest.raises(DataError, match="the chat template rewrote an answer"):
        kept(spanned((edit,), (), ((0, 0), (6, 6))))
