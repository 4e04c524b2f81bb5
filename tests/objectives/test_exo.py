"""EXO against arithmetic, TRL's numbers, and its promise: the reverse KL to the labels, zero at the target."""

from __future__ import annotations

import math

import pytest

from _answers import loss, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def test_by_hand() -> None:
    """KL(q || p) of q = sigma(z) against p = 0.9, with z = beta * 3 = 0.3."""
    q, p = 1 / (1 + math.exp(-0.3)), 0.9
    expected = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert loss("exo:label_smoothing=0.1", 2.0, -1.0) == pytest.approx(expected, rel=1e-12)


def test_golden() -> None:
    matches("exo", "exo", "trl_pairwise")


def test_it_is_zero_and_flat_where_the_policy_believes_the_labels() -> None:
    h = math.log(0.9 / 0.1) / 0.1
    assert loss("exo:label_smoothing=0.1", h, 0.0) == pytest.approx(0, abs=1e-12)
    assert slopes("exo:label_smoothing=0.1", h, 0.0)[0] == pytest.approx(0, abs=1e-12)
    assert slopes("exo:label_smoothing=0.1", h + 5, 0.0)[0] > 0


def test_badly_wrong_pairs_push_less_than_undecided_ones() -> None:
    """The slope has the factor sigma'(z), which dpo's lacks."""
    assert abs(slopes("exo", -80.0, 0.0)[0]) < 0.1 * abs(slopes("exo", 0.0, 0.0)[0])
    assert abs(slopes("dpo", -80.0, 0.0)[0]) > abs(slopes("dpo", 0.0, 0.0)[0])


def test_option_beta() -> None:
    assert loss("exo:beta=0.2", 3.0, 1.0) == pytest.approx(loss("exo:beta=0.1", 6.0, 2.0))


def test_option_label_smoothing() -> None:
    for e in (1e-3, 0.2):
        at = -math.log(2) - 0.5 * math.log(e * (1 - e))
        assert loss(f"exo:label_smoothing={e}", 0.0, 0.0) == pytest.approx(at)
    for e in (0, 0.5):
        with pytest.raises(SpecError, match="label_smoothing"):
            rooms.parse("objectives", f"exo:label_smoothing={e}")
