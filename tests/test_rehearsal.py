"""A few real steps: what they measure, what follows for the run, and that they leave nothing behind."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from _toy import Toy
from grainline import models, rehearsal
from grainline import recipe as recipes
from grainline.errors import InvariantError
from grainline.forecast import Estimate, forecast
from grainline.prepare import prepare
from grainline.rehearsal import FIRST, MOST, Rehearsal, _Clock, _Enough, rehearse


def rehearsed(toy: Toy, **choices: Any) -> tuple[Estimate, Rehearsal]:
    base = {"model": toy.model, "data": toy.pairs, "adapter": "lora:rank=4", "steps": 40, "batch_size": 8}
    recipe = recipes.load(base | choices)
    prepared = prepare(recipe, models.load_tokenizer(recipe.model))
    return rehearse(recipe, prepared, forecast(recipe, prepared))


@pytest.mark.parametrize(
    "choices", [{}, {"reference": "snapshot"}, {"objective": "sft"}, {"adapter": "none"}, {"steps": 1}], ids=str
)
def test_all_of_it_is_there(choices: dict[str, Any], toy: Toy) -> None:
    estimate, found = rehearsed(toy, evaluation={"data": {"test": toy.held_out}}, **choices)
    assert found.layout == estimate.steps.layout == "tree"
    assert 1 <= found.steps < MOST
    assert min(found.start, found.step, found.training, found.evaluation, found.tokens_per_second) > 0
    assert (found.reference > 0) == (estimate.course.once.tokens > 0)
    assert found.memory >= found.peak > 2**20
    assert found.total == found.start + found.reference + found.training + found.evaluation


def test_training_follows_from_the_measured_steps(toy: Toy) -> None:
    """Twice the steps, twice the time: of one measurement, not of two."""
    estimate, found = rehearsed(toy)
    assert found.training == pytest.approx(40 * found.step, rel=0.3)  # steps are alike here
    assert found.tokens_per_second * found.step == pytest.approx(estimate.steps.tokens_of_step, rel=0.3)


def test_nothing_is_left_behind(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rehearsed(toy, adapter="lora:rank=2,init=pissa")
    assert list(tmp_path.iterdir()) == []


def test_the_layout_that_the_weights_allow(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is not exact in trees is estimated for the layout it will have."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("no trees")

    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path))  # what the sound model was found to allow is not remembered
    monkeypatch.setattr("grainline.forward.scorer.Trees", refuse)
    monkeypatch.setattr("grainline.footprint.cost", lambda *_, **__: None)
    estimate, found = rehearsed(toy)
    assert found.layout == estimate.steps.layout == "padded"
    assert "no trees" in found.why


def test_an_architecture_that_is_not_understood(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FLOPs, tokens stand for work."""

    def fail(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("grainline.footprint.cost", fail)
    estimate, found = rehearsed(toy)
    assert estimate.work is None
    assert found.training == pytest.approx(estimate.steps.tokens / found.tokens_per_second)


def test_it_says_what_a_run_would_say(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grainline.objectives.dpo.DPO.constant", 0.5)
    with pytest.raises(InvariantError, match="before the first step"):
        rehearsed(toy)


def test_slow_steps_are_two_and_fast_ones_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for each, most in ((10.0, FIRST), (0.3, 5), (0.001, MOST)):
        clock, now = _Clock(), [0.0]
        monkeypatch.setattr(rehearsal.time, "perf_counter", lambda now=now: now[0])
        taken = 0
        clock.on_train_begin()
        with contextlib.suppress(_Enough):
            while True:
                taken += 1
                now[0] += each
                clock.on_step_end()
        assert taken == len(clock.seconds) == most
