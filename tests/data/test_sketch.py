"""Sketches agree as the texts' word pairs do; near rows are found, far ones are not."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from grainline.data import sketch

VOCABULARY = [f"word{n}" for n in range(2000)]


def jaccard(one: list[str], other: list[str]) -> float:
    first, second = ({*zip(["", *text], text, strict=False)} for text in (one, other))
    return len(first & second) / len(first | second)


def altered(text: list[str], count: int, seed: random.Random) -> list[str]:
    places = set(seed.sample(range(len(text)), count))
    return [seed.choice(VOCABULARY) if n in places else word for n, word in enumerate(text)]


def test_words() -> None:
    assert sketch.words("The SKY, it's blue!") == ["the", "sky", "it", "s", "blue"]
    assert sketch.words("天空 is") == ["天", "空", "is"]
    assert sketch.words(" 🐱 ") == ["🐱"]


def test_agreement_estimates_the_jaccard_index() -> None:
    seed = random.Random(0)
    texts = [seed.choices(VOCABULARY, k=100) for _ in range(300)]
    for count in (0, 2, 10, 30):
        others = [altered(text, count, seed) for text in texts]
        true = sum(map(jaccard, texts, others)) / len(texts)
        agreed = (sketch.sketches(texts) == sketch.sketches(others)).mean()
        # 300 texts of 32 hashes: the mean's standard error is below 0.5 / sqrt(9600)
        assert agreed == pytest.approx(true + (1 - true) / 256, abs=4 * 0.5 / 9600**0.5)


def test_a_sketch_depends_on_its_text_alone() -> None:
    texts = [["one"], ["one", "two", "three"], ["one"]]
    together = sketch.sketches(texts)
    assert together.shape == (3, sketch.HASHES)
    assert (together[0] == together[2]).all()
    assert all((sketch.sketches([text])[0] == row).all() for text, row in zip(texts, together, strict=True))


def test_one_word_is_not_like_another() -> None:
    """Their few hashes hang together: a byte that ignores some bits would take one pair in 256 for the same."""
    said = sketch.sketches([[word] for word in VOCABULARY])
    agreed = [(said[n + 1 :] == said[n]).sum(1).max() for n in range(len(said) - 1)]
    assert max(agreed) < sketch.ALIKE


def test_near_rows_are_found_and_far_ones_not() -> None:
    seed = random.Random(1)
    asked = [seed.choices(VOCABULARY, k=60) for _ in range(500)]
    said = [seed.choices(VOCABULARY, k=120) for _ in range(500)]
    near = list(range(100))  # the same prompt, one word of 120 altered: J = 0.97
    asked += [asked[n] for n in near]
    said += [altered(said[n], 1, seed) for n in near]
    asked += [asked[n] for n in range(100, 200)]  # the same prompt, other answers
    said += [seed.choices(VOCABULARY, k=120) for _ in range(100)]
    asked += [seed.choices(VOCABULARY, k=60) for _ in range(100)]  # another prompt, the same answers
    said += [said[n] for n in range(200, 300)]
    found = list(sketch.alike(sketch.sketches(asked), sketch.sketches(said)))
    assert set(found) <= {(n, 500 + n) for n in near}
    assert len(found) >= 99


def test_boilerplate_costs_no_more_than_its_rows() -> None:
    """Ten thousand rows in one bucket would be fifty million pairs."""
    same = sketch.sketches([["yes"]] * 10_000)
    tracemalloc.start()
    try:
        assert [late for _, late in sketch.alike(same, same)] == list(range(1, 10_000))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
