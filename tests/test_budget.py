"""``max_tokens: auto``: the most that fits a limit, by measurement; settled once, and no number depends on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from _build import many
from _toy import Toy
from grainline import budget, footprint, models
from grainline import recipe as recipes
from grainline.budget import ROUND, SMALL, _first, _fitting, _Point, _tried, settle
from grainline.data import collate
from grainline.data.order import Order
from grainline.engine import Engine
from grainline.errors import RecipeError
from grainline.prepare import prepare
from grainline.runs import Run, align
from grainline.types import Example

ROWS = sorted(many(60, prompts=60), key=lambda row: -collate.tokens([row], "tree"))
LONGEST = collate.tokens(ROWS[:1])


def line(fixed: int, each: int, *, most: float = float("inf")) -> Callable[[Any], _Point]:
    """A device on which a forward takes so many bytes, and runs out of memory above ``most``."""

    def measure(rows: list[Example]) -> _Point:
        tokens = collate.tokens(rows)
        if tokens > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return _Point(tokens, fixed + each * tokens)

    return measure


@pytest.mark.parametrize("allowed", [10_000 + 10 * tokens for tokens in (300, 700, 5000)])
def test_the_most_that_fits(allowed: int) -> None:
    size, expected = _fitting(ROWS, 10_000, allowed, "tree", line(10_000, 10))
    assert size % ROUND == 0
    assert 10_000 + 10 * size == expected <= allowed < 10_000 + 10 * (size + ROUND)


def test_no_more_than_is_wanted_and_never_less_than_the_longest_row() -> None:
    assert _fitting(ROWS, 900, 10**9, "tree", line(10_000, 10))[0] == 900
    assert _fitting(ROWS, 10_000, 10_000 + 10 * LONGEST, "tree", line(10_000, 10))[0] == LONGEST
    with pytest.raises(RecipeError, match=rf"memory: the longest row, {LONGEST} tokens, takes"):
        _fitting(ROWS, 10_000, 9_999 + 10 * LONGEST, "tree", line(10_000, 10))


def test_out_of_memory_on_the_way() -> None:
    """The second forward is too much: the first is what fits. The first is: no run."""
    measure = line(0, 1, most=SMALL)
    assert LONGEST < _fitting(ROWS, 10_000, 10**9, "tree", measure)[0] <= SMALL
    with pytest.raises(RecipeError, match="the longest row"):
        _fitting(ROWS, 10_000, 10**9, "tree", line(0, 1, most=LONGEST - 1))
    assert _tried(ROWS, 1000, "tree", line(0, 1, most=500)) == 448  # after 1000, 768 and 576
    assert _tried(ROWS, 1000, "tree", line(0, 1)) == 1000
    assert _tried(ROWS, 1000, "tree", line(0, 1, most=LONGEST - 1)) == LONGEST


@pytest.mark.parametrize("layout", collate.Layout.__args__)  # type: ignore[attr-defined]
def test_the_rows_measured_are_the_longest_that_fit(layout: Any) -> None:
    for tokens in (1, 200, 500):
        taken = _first(ROWS, tokens, layout)
        assert taken == ROWS[: len(taken)]
        assert len(taken) == 1 or collate.tokens(taken, layout) <= tokens < collate.tokens(
            ROWS[: len(taken) + 1], layout
        )


@pytest.fixture
def ready(toy: Toy, tmp_path: Path) -> Callable[..., Any]:
    """Everything that is settled with, of a run whose adapter is attached."""

    def make(**choices: Any) -> Any:
        recipe = recipes.load({"model": toy.model, "data": toy.pairs, "max_tokens": "auto", "batch_size": 8} | choices)
        loaded = models.load(recipe.model)
        examples = prepare(recipe, loaded.tokenizer).train
        engine = Engine.build(recipe, loaded.model, examples, Accelerator(cpu=True))
        reference = engine.reference(examples, quiet=True)
        engine.attach(tmp_path)
        order = Order(examples, batch_size=recipe.batch_size, sampler=recipe.sampler, seed=recipe.seed)
        return recipe, engine, order, 5, reference

    return make


def test_measuring_leaves_everything_as_it_was(ready: Callable[..., Any]) -> None:
    """Also an adapter whose dropout draws: the run's own draws are those without measuring."""
    made = ready(adapter="lora:rank=4,dropout=0.3", layout="packed", memory="64GB")
    engine = made[1]
    before = {name: tensor.clone() for name, tensor in engine.scorer.state_dict().items()}
    state, mode = torch.get_rng_state(), engine.scorer.training
    found = settle(*made)
    assert found.max_tokens == max(collate.tokens(made[2].step(step), "packed") for step in range(5))
    assert found.why == "no step is larger"
    assert footprint.resident() / 3 < found.expected < found.limit == 64 * 10**9
    assert torch.equal(torch.get_rng_state(), state)
    assert engine.scorer.training == mode
    assert all(parameter.grad is None for parameter in engine.scorer.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in engine.scorer.state_dict().items())


@pytest.mark.parametrize("optimizer", ["adamw", "rad"])
def test_what_the_optimizer_will_keep_is_counted(ready: Callable[..., Any], optimizer: str) -> None:
    """Two moments in float32; rad is told how long the run is, as it asks."""
    recipe, engine, *_ = ready(optimizer=optimizer)
    trained = sum(tagged.tensor.numel() for tagged in engine.trainable())
    assert budget._state(recipe, engine, 5) == pytest.approx(2 * 4 * trained, rel=0.01)


def test_a_limit_that_is_too_small_is_said(ready: Callable[..., Any]) -> None:
    with pytest.raises(RecipeError, match=r"memory: the longest row, .* Allow more, lower max_length"):
        settle(*ready(memory="1MB"))


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.metrics if "loss" in line]


def test_a_run_writes_what_it_settled_and_learns_the_same(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settled below a step's size, so that steps are split otherwise; a resumed run keeps it and measures nothing."""
    monkeypatch.setattr(budget, "_fitting", lambda *_: (120, 1000))
    plain = align(**toy.choices(tmp_path / "plain", steps=4, progress=True))
    auto = toy.choices(tmp_path / "auto", steps=4, max_tokens="auto", checkpoints={"every": 2}, progress=True)

    class Stop:
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 2

    capsys.readouterr()
    stopped = align(**auto, callbacks=[Stop()])
    assert "max_tokens: 120 (about" in capsys.readouterr().err
    assert not stopped.finished
    assert stopped.recipe.max_tokens == 120
    monkeypatch.setattr(budget, "settle", None)
    done = align(**auto, resume=True)
    assert done.recipe.max_tokens == 120
    assert losses(done) == pytest.approx(losses(plain), abs=1e-5)
    assert recipes.load(done.folder, ["max_tokens=77"]).tokens_at_once == 77
