"""dedupe: the first of rows that repeat each other, as datasketch finds them too."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import datasketch

from _steps import left, made, pair
from grainline.data import sketch

WORDS = [f"w{n}" for n in range(3000)]


def texts(count: int, *, near: int, changed: int, seed: int = 0) -> list[str]:
    """Random texts of 60 words; every ``near``-th comes again with so many words ``changed``."""
    rng = random.Random(seed)
    found = []
    for n in range(count):
        said = rng.choices(WORDS, k=60)
        found.append(" ".join(said))
        if n % near == 0:
            for at in rng.sample(range(60), changed):
                said[at] = "other"
            found.append(" ".join(said))
    return found


def test_the_first_stays() -> None:
    rows = [pair("a"), pair("b"), pair("a") | {"id": "c", "prompt": "why  A?"}, pair("d") | {"prompt": "Why a?"}]
    rows[3]["chosen"] = "Yes, truly."
    assert made("dedupe:threshold=1", rows) == [[rows[0]], [rows[1]], "repeats another", [rows[3]]]


def test_near_repeats_and_chains() -> None:
    said = [f"word{n} follows" for n in range(40)]
    step = [" ".join(said[n : n + 36]) for n in range(4)]  # each like the next, the last less like the first
    rows = [pair(str(n), text, "No.") | {"prompt": "Why?"} for n, text in enumerate(step)]
    assert made("dedupe", rows)[1:] == ["nearly repeats another"] * 3
    other = pair("x", step[0], "No.") | {"prompt": "What is the name of the third of these?"}
    assert left("dedupe", [rows[0], other]) == ["0", "x"]  # another question


def test_as_datasketch_finds_them() -> None:
    """All rows that its LSH finds, which misses some more at the border; and none that shares less."""
    said = texts(400, near=4, changed=3)
    lsh = datasketch.MinHashLSH(threshold=0.7, num_perm=128)
    theirs = set()
    for n, text in enumerate(said):
        minhash = datasketch.MinHash(num_perm=128)
        words = text.split()
        minhash.update_batch([f"{a} {b}".encode() for a, b in zip(["", *words], words)])  # noqa: B905
        if lsh.query(minhash):
            theirs.add(n)
        lsh.insert(n, minhash)
    rows = [pair(str(n), text, "No.") | {"prompt": "Why?"} for n, text in enumerate(said)]
    ours = {n for n, one in enumerate(made("dedupe:threshold=0.7", rows)) if one == "nearly repeats another"}
    true = {n for n in range(1, len(said)) if jaccard(said[n - 1], said[n]) >= 0.7}
    assert len(true) == 100
    assert ours <= true
    assert theirs <= ours
    assert len(true - ours) <= 2 < len(true - theirs)


def jaccard(one: str, other: str) -> float:
    left, right = (Counter(zip(["", *text.split()], text.split())) for text in (one, other))  # noqa: B905
    return len(left.keys() & right.keys()) / len(left.keys() | right.keys())


def test_option_by() -> None:
    rows: list[dict[str, Any]] = [pair("a"), pair("a", "Another.") | {"id": "b"}, pair("c")]
    assert left("dedupe:by=prompt", rows) == ["a", "c"]
    assert left("dedupe:by=answers", rows) == ["a", "b"]
    assert left("dedupe:by=row,threshold=1", rows) == ["a", "b", "c"]


def test_option_threshold() -> None:
    said = texts(50, near=1, changed=6)  # J of about 0.65
    rows = [pair(str(n), text, "No.") | {"prompt": "Why?"} for n, text in enumerate(said)]
    mean = sum(jaccard(said[n], said[n + 1]) for n in range(0, 100, 2)) / 50
    assert 0.6 < mean < 0.75
    assert len(left("dedupe:threshold=0.5", rows)) == 50
    assert len(left("dedupe:threshold=0.9", rows)) == 100


def test_least_agreement_is_the_mean_of_the_estimate() -> None:
    assert sketch.least(1.0, 128) == 128
    assert sketch.least(0.5, 256) == round(256 * (0.5 + 0.5 / 256))


def test_many_equal_rows() -> None:
    rows = [pair("a") | {"id": str(n)} for n in range(100)] + [pair("b")]
    assert left("dedupe", rows) == ["0", "b"]


def test_rows_of_several_answers() -> None:
    rows = [{"id": str(n), "prompt": "p", "answers": ["One.", {"text": "Two."}]} for n in range(2)]
    assert left("dedupe", rows) == ["0"]
