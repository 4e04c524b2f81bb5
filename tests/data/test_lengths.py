"""Lengths are exact; the interval of the length bias is Wilson's, and wider where rows hang together."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from grainline.data import lengths
from grainline.data.lengths import Lengths, bias, effective, quantile, summary, wilson


def test_summary() -> None:
    texts = [*range(1, 20), 100]  # 20 texts: the 10th is 10 long, the 19th 19
    assert summary(Counter(texts)) == Lengths(20, (190 + 100) / 20, 10, 19, 100)
    assert summary(Counter({7: 3})) == Lengths(3, 7.0, 7, 7, 7)


@pytest.mark.parametrize(("share", "length"), [(0.25, 3), (0.26, 5), (0.75, 5), (0.76, 9), (1.0, 9)])
def test_a_quantile_is_a_length_that_occurs(share: float, length: int) -> None:
    assert quantile({3: 1, 5: 2, 9: 1}, share) == length


def test_wilson_contains_what_would_have_made_it_likely() -> None:
    """Its bounds p solve |share - p| = z sqrt(p (1 - p) / n), which is how Wilson (1927) defined them."""
    for share, count in ((0.6, 50.0), (0.5, 3.0), (0.02, 400.0)):
        for bound in wilson(share, count):
            assert abs(share - bound) == pytest.approx(lengths.Z * math.sqrt(bound * (1 - bound) / count), rel=1e-9)
    assert wilson(1.0, 4.0) == (pytest.approx(4 / (4 + lengths.Z**2)), 1.0)
    assert wilson(0.0, 4.0)[0] == 0.0


def test_a_tie_counts_one_half() -> None:
    found = bias("characters", [2, 2, 1, 0], [1, 2, 3, 4], chosen=12.0, rejected=8.0)
    assert (found.pairs, found.ties, found.share) == (4, 1, (1 + 1 + 0.5 + 0) / 4)
    assert (found.low, found.high) == wilson(0.625, 4.0)


def test_rows_of_one_prompt_are_not_independent() -> None:
    import numpy as np

    value = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert effective(value, np.arange(6)) == pytest.approx(6)
    # three prompts of two rows that agree: totals 2, 1, 0 about 1, variance (1 + 0 + 1) / 36, against (1/4) / 6 if the
    # rows were independent
    assert effective(value, np.array([0, 0, 1, 2, 2, 1])) == pytest.approx(0.25 / (2 / 36))
    assert effective(np.ones(6), np.array([0, 0, 0, 1, 1, 1])) == 2  # all agree: as many as prompts
    assert effective(value, np.array([0, 1, 2, 0, 1, 2])) == 6  # rows of one prompt that differ add nothing
