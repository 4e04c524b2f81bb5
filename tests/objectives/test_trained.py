"""Objectives at work: short runs of a tiny model on pairs that it can learn, and the promises that show only there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy, jsonl, pairs
from grainline import recipe, rooms
from grainline.recipe import presets
from grainline.runs import Run, align

LEAST = {"model": "m", "data": "d"}


def made_of_pairs(choice: str) -> bool:
    """Whether log-probs of pairs and numbers are all that it asks for."""
    needs = recipe.load(LEAST, [f"objective={choice}"]).objective.needs
    return needs >= {"pairs"} and all(n in ("pairs", "reference") or n.startswith("number ") for n in needs)


CHOICES = [name for name in rooms.names("objectives") if made_of_pairs(name)]
CHOICES += [name for name, one in presets().items() if "objective" in one.choices and made_of_pairs(name)]


@pytest.fixture
def doubted(tmp_path: Path) -> str:
    """Pairs of which every third is the wrong way round, and the judges were at odds about those."""
    rows = pairs(40, prompts=25, seed=0)
    for i, row in enumerate(rows):
        wrong = i % 3 == 0
        if wrong:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        row |= dict.fromkeys(("chosen_uncertainty", "rejected_uncertainty"), 2.0 if wrong else 0.05)
    return jsonl(tmp_path / "doubted.jsonl", rows)


def trained(toy: Toy, folder: Path, **choices: Any) -> Run:
    evaluation = {"data": {"test": toy.held_out}, "samples": 0}
    return align(**toy.choices(folder, evaluation=evaluation, **{"steps": 12} | choices))


def last(run: Run, name: str) -> tuple[float, float]:
    """A held-out metric before and after."""
    said = [line[f"eval_test_{name}"] for line in run.metrics if f"eval_test_{name}" in line]
    return said[0], said[-1]


@pytest.mark.parametrize("choice", CHOICES)
def test_it_learns(choice: str, toy: Toy, doubted: str, tmp_path: Path) -> None:
    """The loss falls, and the first one is the constant where there is one."""
    run = align(**toy.choices(tmp_path / "run", objective=choice, data=doubted, steps=12))
    losses = [line["loss"] for line in run.metrics if "loss" in line]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-3:]) / 3 < losses[0]
    constant = getattr(run.recipe.objective, "constant", None)
    if constant is not None and "reference" in run.recipe.objective.needs:
        assert losses[0] == pytest.approx(constant, rel=1e-4)


def test_apo_down_lowers_both_answers_and_apo_zero_raises_the_chosen(toy: Toy, tmp_path: Path) -> None:
    down = trained(toy, tmp_path / "down", objective="apo-down")
    for side in ("chosen", "rejected"):
        before, after = last(down, f"logps/{side}")
        assert after < before - 1
    assert last(down, "rewards/margins")[1] > 0
    before, after = last(trained(toy, tmp_path / "zero", objective="apo-zero"), "logps/chosen")
    assert after > before + 1


def test_uncertain_pairs_mislead_less(toy: Toy, doubted: str, tmp_path: Path) -> None:
    """A third of the labels is wrong; the penalty hears the right ones better, so held-out margins are larger."""
    plain, penalised = (
        last(trained(toy, tmp_path / name, objective=name, data=doubted), "rewards/margins")[1]
        for name in ("dpo", "updpo")
    )
    assert penalised > 1.2 * plain
