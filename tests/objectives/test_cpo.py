"""Contrastive preference optimisation against arithmetic, TRL's numbers, and dpo with a uniform reference."""

from __future__ import annotations

import math

import pytest

from _answers import answers, losses, matches
from grainline import rooms
from grainline.errors import SpecError


def value(text: str, chosen: float, rejected: float, term: str = "cpo") -> float:
    return losses(text, answers([chosen], [rejected])).terms[term].value.item()


def test_by_hand() -> None:
    assert value("cpo", -3.0, -4.0) == pytest.approx(math.log1p(math.exp(-0.1)), rel=1e-12)
    assert value("cpo", -3.0, -4.0, "sft") == pytest.approx(3.0)


@pytest.mark.parametrize("text", ["cpo", "cpo:link=hinge", "cpo:link=ipo"])
def test_golden(text: str) -> None:
    matches(text, "cpo", "trl_reference_free")


def test_it_is_dpo_with_a_uniform_reference() -> None:
    policy = answers([-3.0, -9.0], [-4.0, -2.0])
    uniform = answers([-5.0, -5.0], [-5.0, -5.0])
    expected = losses("dpo", policy, uniform).terms["dpo"].value
    assert losses("cpo", policy).terms["cpo"].value.tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_option_beta() -> None:
    assert value("cpo:beta=0.5", -3.0, -4.0) == pytest.approx(math.log1p(math.exp(-0.5)))


def test_option_link() -> None:
    assert value("cpo:link=hinge", -3.0, -4.0) == pytest.approx(1 - 0.1)
    assert value("cpo:link=ipo", -3.0, -4.0) == pytest.approx((0.5 - 5) ** 2)


def test_option_sft() -> None:
    assert losses("cpo", answers([-3.0], [-4.0])).terms["sft"].coefficient == 1
    assert losses("cpo:sft=0.25", answers([-3.0], [-4.0])).terms["sft"].coefficient == 0.25


def test_option_label_smoothing() -> None:
    plain, flipped = (math.log1p(math.exp(-z)) for z in (0.1, -0.1))
    assert value("cpo:label_smoothing=0.2", -3.0, -4.0) == pytest.approx(0.8 * plain + 0.2 * flipped)
    with pytest.raises(SpecError, match="read with link=sigmoid only"):
        rooms.parse("objectives", "cpo:link=hinge,label_smoothing=0.1")
