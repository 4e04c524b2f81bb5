"""A run's forwards laid out without its model: exactly those that the run makes."""

from __future__ import annotations

from typing import Any

import pytest

from _toy import Toy
from grainline import course as courses
from grainline import recipe as recipes
from grainline.course import Course, lay_out
from grainline.errors import RecipeError
from grainline.models import load_tokenizer
from grainline.prepare import prepare
from grainline.runs import align
from grainline.types import Layout


def laid_out(toy: Toy, layout: Layout = "tree", **choices: Any) -> Course:
    recipe = recipes.load({"model": toy.model, "data": toy.pairs, "batch_size": 8} | choices)
    return lay_out(recipe, prepare(recipe, load_tokenizer(recipe.model)), layout)


@pytest.mark.parametrize(
    ("layout", "choices"),
    [
        ("tree", {}),
        ("packed", {"max_tokens": 100}),
        ("padded", {}),
        ("tree", {"objective": "sft"}),
        ("tree", {"sampler": "by_prompt", "max_tokens": 60}),
    ],
    ids=str,
)
def test_tokens_are_those_that_a_run_logs(layout: Layout, choices: dict[str, Any], toy: Toy, tmp_path: Any) -> None:
    found = laid_out(toy, layout, steps=6, **choices).steps
    run = align(**toy.choices(tmp_path / "run", steps=6, layout=layout, **choices))
    assert found.tokens == run.metrics[-1]["num_tokens"]
    assert found.tokens_of_step == found.tokens / 6
    assert found.laid_out == found.steps == 6


def test_steps_and_epochs(toy: Toy) -> None:
    steps = laid_out(toy, epochs=2).steps
    assert (steps.steps, steps.rows, steps.epochs) == (10, 8, 2.0)
    assert steps.tokens_of_epoch == steps.tokens / 2
    assert steps.forwards == 10
    assert steps.largest <= 2048
    assert laid_out(toy, epochs=2, max_tokens=64).steps.forwards > 20


def test_what_the_tree_saves(toy: Toy) -> None:
    tree, packed = (laid_out(toy, layout, epochs=2).steps for layout in ("tree", "packed"))
    assert tree.alone == packed.alone == packed.tokens
    assert tree.tokens < packed.tokens < laid_out(toy, "padded", epochs=2).steps.tokens


def test_a_long_run_is_judged_by_some_of_its_steps(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = laid_out(toy, steps=60).steps
    monkeypatch.setattr(courses, "STEPS_LAID_OUT", 20)
    some = laid_out(toy, steps=60).steps
    assert (some.laid_out, some.steps) == (20, 60)
    assert some.tokens == pytest.approx(whole.tokens, rel=0.05)
    assert some.tokens != whole.tokens


@pytest.mark.parametrize(
    ("choices", "looks", "each_step"),
    [
        ({}, 1, 0),  # the end; the start is read from the cache
        ({"every": 2}, 3, 0),  # after 2 and 4 and at the end of 5
        ({"every": 5}, 1, 0),
        ({"reference": "off"}, 2 + 2, 1),
        ({"reference": "snapshot", "every": 2}, 2 + 6, 1),
        ({"objective": "sft"}, 1 + 1, 0),
    ],
    ids=str,
)
def test_looks_at_held_out_data(choices: dict[str, Any], looks: float, each_step: float, toy: Toy) -> None:
    every = choices.pop("every", 0) if (choices := dict(choices)) else 0
    found = laid_out(toy, evaluation={"data": {"test": toy.held_out}, "every": every}, **choices)
    assert (found.looks, found.each_step) == (looks, each_step)
    assert found.held_out.tokens > 0
    cached = not each_step and "objective" not in choices
    assert (found.once.tokens > found.held_out.tokens) == cached  # the reference reads the training rows too


def test_the_reference_reads_no_more_than_is_used(toy: Toy) -> None:
    one, all_, twice = (laid_out(toy, steps=steps).once.tokens for steps in (1, 5, 10))
    assert one < all_ == twice


def test_a_misspelt_schedule(toy: Toy) -> None:
    with pytest.raises(RecipeError, match="schedule"):
        laid_out(toy, schedule="liner")
