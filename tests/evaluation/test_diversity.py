"""Distinct n-grams, repetition, self-BLEU and spread: by hand, and self-BLEU against sacrebleu."""

from __future__ import annotations

import random

import numpy as np
import pytest
from nltk.util import ngrams
from sacrebleu import sentence_bleu

from grainline.evaluation import diversity


def test_distinct_by_hand() -> None:
    texts = ["a b a b", "a b"]
    assert diversity.distinct(texts, 1) == 2 / 6
    assert diversity.distinct(texts, 2) == 2 / 4  # ab, ba, ab; ab
    assert diversity.distinct(texts, 5) is None


def test_distinct_is_that_of_nltks_ngrams() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choice("abcdefg") for _ in range(rng.randint(3, 20))) for _ in range(20)]
    for n in (1, 2, 3):
        grams = [gram for text in texts for gram in ngrams(text.split(), n)]
        assert diversity.distinct(texts, n) == len(set(grams)) / len(grams)


def test_repetition_by_hand() -> None:
    loop = "a b c d a b c d a"  # abcd bcda cdab dabc abcd bcda: 4 of 6 are new
    assert diversity.repetition([loop, "a b c"]) == pytest.approx((1 - 4 / 6 + 0) / 2)
    assert diversity.repetition([]) is None


def test_self_bleu_is_sacrebleus() -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choice("abcdefghij") for _ in range(rng.randint(1, 25))) for _ in range(12)]
    texts += ["the same words", "the same words", "nothing else alike"]
    theirs = [
        sentence_bleu(text, [t for k, t in enumerate(texts) if k != i], tokenize="none", use_effective_order=True).score
        for i, text in enumerate(texts)
    ]
    assert diversity.self_bleu(texts) == pytest.approx(sum(theirs) / len(theirs), abs=1e-6)


def test_self_bleu_at_its_ends() -> None:
    assert diversity.self_bleu(["one two three four five"] * 3) == pytest.approx(100)
    assert diversity.self_bleu(["a b c d", "e f g h"]) == 0
    assert diversity.self_bleu(["alone"]) is None
    assert diversity.self_bleu(["", "x"]) == 0


def test_spread_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    v = rng.normal(size=(9, 5))
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    pairs = [1 - unit[i] @ unit[j] for i in range(9) for j in range(i)]
    assert diversity.spread(v.tolist()) == pytest.approx(sum(pairs) / len(pairs))
    assert diversity.spread([[1.0, 2.0]]) is None
