"""Shades: in order, symmetric, and never told by colour alone."""

from __future__ import annotations

import doctest
import math
import re

from grainline.report import shades


def test_examples() -> None:
    found = doctest.testmod(shades)
    assert found.attempted > 1
    assert not found.failed


def test_shades_follow_the_numbers() -> None:
    values = [x / 50 for x in range(-100, 101)]
    found = [shades.shade(value, 1.0) for value in values]
    assert found == sorted(found)
    assert [-x for x in found[::-1]] == found
    assert {*found} == {*range(-shades.STEPS, shades.STEPS + 1)}


def test_one_odd_token_does_not_pale_the_others() -> None:
    assert shades.strongest([*([1.0] * 99), 1000.0]) == 1.0
    assert shades.strongest([*([0.0] * 99), -3.0]) == 3.0  # but where all others are zero, it is what there is to see
    assert shades.strongest([math.nan, math.inf]) == shades.strongest([]) == 0.0


def test_a_second_cue_goes_with_each_colour() -> None:
    said = {
        (sign, int(step)): (line, int(width))
        for sign, step, width, line in re.findall(
            r"\.swatch\.([pn])(\d) \{.*?border-bottom: (\d)px (\w+)", shades.rules()
        )
    }
    assert len(said) == 2 * shades.STEPS
    assert {line for (sign, _), (line, _) in said.items() if sign == "p"} == {"solid"}
    assert {line for (sign, _), (line, _) in said.items() if sign == "n"} == {"dashed"}
    assert said["p", 1][1] < said["p", shades.STEPS][1]


def test_each_quantity_has_its_own_rule() -> None:
    rules = shades.rules("ab")
    assert "#pairs:has(#shade-a:checked) .ap1" in rules
    assert "#pairs:has(#shade-b:checked) .bn4" in rules
    assert shades.css_class("b", -1.0, 1.0) == "bn4"
    assert shades.css_class("b", 0.0, 1.0) == ""
