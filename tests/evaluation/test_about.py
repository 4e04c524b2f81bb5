"""Figures in words: on the page letter for letter, and found by name."""

from __future__ import annotations

from conftest import ROOT
from grainline.evaluation.about import ABOUT, about


def test_the_page_says_the_same() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert [name for name, said in ABOUT.items() if f"| `{name}` | {said} |" not in page] == []


def test_a_star_is_one_part_and_the_longest_fits() -> None:
    assert about("rewards/safety/margins") == ABOUT["rewards/*/margins"]
    assert about("displacement/chosen_per_token") == ABOUT["displacement/*_per_token"]
    assert about("displacement/first_16") == ABOUT["displacement/first_*"]
    assert about("displacement/chosen") == ABOUT["displacement/*"]
    assert about("an/objectives/own") == ""
