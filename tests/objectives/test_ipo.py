"""IPO against arithmetic, against TRL's numbers, and against its promise: a margin that stops."""

from __future__ import annotations

import pytest

from _answers import GOLDEN, answers, loss, losses, matches, slopes
from grainline import rooms
from grainline.errors import SpecError


def test_by_hand() -> None:
    """h is 1 and -0.5, each on two tokens; beta = 0.5 aims at a margin of 1 nat."""
    assert loss("ipo:beta=0.5", 1.0, -0.5) == pytest.approx((0.5 + 0.25 - 1) ** 2)
    assert loss("ipo:beta=0.5,normalise=sum", 1.0, -0.5) == pytest.approx((1.5 - 1) ** 2)


@pytest.mark.parametrize("text", ["ipo", "ipo:beta=0.5"])
def test_golden(text: str) -> None:
    matches(text, "ipo", "trl_pairwise")


@pytest.mark.parametrize(("text", "expected"), GOLDEN["trl_pairwise"]["independent"]["cases"].items())
def test_golden_of_sums(text: str, expected: list[float]) -> None:
    stated = GOLDEN["trl_pairwise"]["inputs"]
    policy = answers(stated["chosen_logps"], stated["rejected_logps"])
    reference = answers(stated["ref_chosen_logps"], stated["ref_rejected_logps"])
    assert losses(text, policy, reference).terms["ipo"].value.tolist() == pytest.approx(expected, rel=1e-9)


def test_the_push_ends_at_the_target_and_turns_beyond() -> None:
    before, at, beyond = (slopes("ipo:beta=0.25,normalise=sum", h, 0.0)[0] for h in (1.5, 2.0, 2.5))
    assert before < 0 < beyond
    assert at == pytest.approx(0, abs=1e-12)


def test_option_beta() -> None:
    """The margin at which the push ends is 1 / (2 beta)."""
    for beta in (0.1, 0.2):
        assert slopes(f"ipo:beta={beta},normalise=sum", 0.5 / beta, 0.0)[0] == pytest.approx(0, abs=1e-12)


def test_option_normalise() -> None:
    """Twice as long an answer with the same log-ratio has half the margin per token, and the same per answer."""
    found = {}
    for normalise in ("mean", "sum"):
        text = f"ipo:normalise={normalise}"
        found[normalise] = [
            losses(text, answers([1.0], [0.0], [n, n]), answers([0.0], [0.0], [n, n])).terms["ipo"].value.item()
            for n in (2, 4)
        ]
    assert found["sum"][0] == found["sum"][1] == pytest.approx((1 - 5) ** 2)
    assert found["mean"] == pytest.approx([(0.5 - 5) ** 2, (0.25 - 5) ** 2])


def test_beta_is_above_zero() -> None:
    with pytest.raises(SpecError, match="beta"):
        rooms.parse("objectives", "ipo:beta=0")
