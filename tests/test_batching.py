"""Rows of a step, and ``batch_size: auto``: the largest step without a second forward, recorded, and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from _build import example, many
from _toy import Toy
from grainline import batching, budget, cli, models
from grainline import recipe as recipes
from grainline.batching import SECOND, fill, ordered, step_forwards
from grainline.errors import RecipeError
from grainline.prepare import prepare
from grainline.recipe import Recipe
from grainline.runs import Run, align
from grainline.types import Layout

ALIKE = [example(i, [1, 2, i], [3, 4, 5], [6, i]) for i in range(40)]  # 3 + 2 + 1 tokens each, as trees
UNLIKE = many(60, prompts=40)


def recipe(**choices: Any) -> Recipe:
    return recipes.load({"model": "some", "data": "some.jsonl", "batch_size": "auto"} | choices)


def test_rows_that_are_alike_by_hand() -> None:
    """Six tokens a row: a forward of 32 holds five, two processes hold ten; and no more rows than there are."""
    assert fill(recipe(max_tokens=32), ALIKE, "tree") == (5, 32, 1, 0.0, 40)
    assert fill(recipe(max_tokens=32), ALIKE, "tree", processes=2).batch_size == 2 * 32 // 6
    assert fill(recipe(max_tokens=32), ALIKE, "packed").batch_size == 32 // (5 + 4)  # the prompt twice
    assert fill(recipe(max_tokens=32), ALIKE, "padded").batch_size == 32 // (2 * 5)
    everything = fill(recipe(max_tokens=4096), ALIKE, "tree")
    assert everything.batch_size == 40
    assert "all rows there are" in str(everything)


def test_a_row_is_not_shared_by_two_processes() -> None:
    """A forward of 9 tokens holds one row of six: 18 tokens are room for three in sum, but for one in each process."""
    assert fill(recipe(max_tokens=9), ALIKE, "tree", processes=2)[:4] == (2, 9, 2, 0.0)


def test_a_process_needs_a_row_even_where_none_fits() -> None:
    """A row larger than the budget is a forward of its own."""
    found = fill(recipe(max_tokens=4), ALIKE, "tree", processes=3)
    assert (found.batch_size, found.second) == (3, 0.0)
    assert "batch_size: 3 (the most of which nine steps in ten are one forward in each process at max_t" in str(found)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
@pytest.mark.parametrize(
    ("choices", "processes"),
    [({"max_tokens": 128}, 1), ({"max_tokens": 300, "objective": "kto", "steps": 30}, 1), ({"max_tokens": 64}, 3)],
    ids=str,
)
def test_the_most_rows_without_a_second_forward(layout: Layout, choices: dict[str, Any], processes: int) -> None:
    """Forwards as a run makes them: one step in ten has two at most; of one row more, and of twice as many, more do."""
    chosen = fill(recipe(**choices), UNLIKE, layout, processes)
    assert processes < chosen.batch_size < len(UNLIKE)
    assert twice(recipe(**choices | {"batch_size": chosen.batch_size}), layout, processes) == chosen.second <= SECOND
    assert twice(recipe(**choices | {"batch_size": chosen.batch_size + 1}), layout, processes) > SECOND
    assert twice(recipe(**choices | {"batch_size": 2 * chosen.batch_size}), layout, processes) > 0.9


def twice(settled: Recipe, layout: Layout, processes: int) -> float:
    """Share of the run's steps that are more than one forward of each process."""
    order, steps = ordered(settled, UNLIKE)
    assert 1 < steps <= batching.LOOKED_AT
    made = [len(step_forwards(settled, order, step, layout=layout, processes=processes)) for step in range(steps)]
    return sum(forwards > processes for forwards in made) / steps


def test_one_long_row_does_not_decide() -> None:
    """It is in one of eight steps of five rows, in one of ten of four."""
    long = [*ALIKE[:-1], example(39, list(range(30)), [3], [4])]
    assert fill(recipe(max_tokens=32), long, "tree")[:4] == (4, 32, 1, 0.1)


def test_a_run_writes_what_it_chose_and_goes_on_with_it(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It learns what a run of that number learns. One that was stopped keeps it, under another budget too."""
    choices = {"batch_size": "auto", "steps": None, "max_tokens": 300}
    auto = toy.choices(tmp_path / "auto", progress=True, checkpoints={"every": 2}, **choices)

    class Stop:
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 2

    stopped = align(**auto, callbacks=[Stop()])
    chosen = stopped.recipe
    assert f"batch_size: {chosen.batch_size} (the most of which" in capsys.readouterr().err
    assert chosen == recipes.load(stopped.folder / "recipe.yaml")
    examples = prepare(chosen, models.load_tokenizer(chosen.model)).train
    assert chosen.batch_size == fill(chosen, examples, "tree").batch_size
    assert chosen.steps == round(40 / chosen.batch_size) > 2
    cli_steps(toy, capsys, rows=chosen.batch_size, steps=chosen.steps)

    monkeypatch.setattr(batching, "fill", None)
    done = align(**auto | {"max_tokens": 100}, resume=True)
    assert (done.recipe.batch_size, done.recipe.steps) == (chosen.batch_size, chosen.steps)
    plain = align(**toy.choices(tmp_path / "plain", batch_size=chosen.batch_size, steps=chosen.steps))
    assert losses(done) == pytest.approx(losses(plain), abs=1e-5)


def cli_steps(toy: Toy, capsys: pytest.CaptureFixture[str], *, rows: int, steps: int) -> None:
    """``grainline plan`` counts with the number that the run takes."""
    words = [f"model={toy.model}", f"data={toy.pairs}", "adapter=lora:rank=4", "batch_size=auto", "max_tokens=300"]
    for more in ([], ["--probe"]):
        with pytest.raises(SystemExit):
            cli.main(["plan", *words, "--json", *more])
        found = json.loads(capsys.readouterr().out)["steps"]
        assert (found["rows"], found["steps"]) == (rows, steps)


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.metrics if "loss" in line]


def test_rows_follow_the_budget_that_was_measured(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both open. A run that is cut off while it measures is resumed and measures; one that has measured does not."""
    auto = toy.choices(tmp_path / "run", batch_size="auto", max_tokens="auto", steps=None, epochs=0.5)
    real = budget.settle

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(budget, "settle", cut_off)
    with pytest.raises(KeyboardInterrupt):
        align(**auto)
    begun = Run(tmp_path / "run").recipe
    assert (begun.batch_size, begun.max_tokens, begun.steps) == ("auto", "auto", None)

    monkeypatch.setattr(budget, "settle", real)
    monkeypatch.setattr(budget, "_fitting", lambda *_: (120, 1000))
    done = align(**auto, resume=True)
    found = done.recipe
    assert found.max_tokens == 120
    examples = prepare(found, models.load_tokenizer(found.model)).train
    assert found.batch_size == fill(found, examples, "tree").batch_size < 40
    assert found.steps == round(20 / found.batch_size) == len(losses(done))


def test_a_memory_that_is_too_small_leaves_nothing(toy: Toy, tmp_path: Path) -> None:
    auto = toy.choices(tmp_path / "run", batch_size="auto", max_tokens="auto", memory="1MB")
    with pytest.raises(RecipeError, match=r"memory: the longest row, .* Allow more, lower max_length"):
        align(**auto)
    assert not (tmp_path / "run").exists()


def test_answers_of_other_rows_must_be_known_before_the_reference_reads(toy: Toy, tmp_path: Path) -> None:
    """Which other rows a row meets rests on rows a step. With one of the two stated it is known in time."""
    choices = {"objective": "kto", "data": toy.labelled, "batch_size": "auto", "steps": 2}
    with pytest.raises(RecipeError, match=r"batch_size: kto reads answers to other prompts .* State it, or max_tokens"):
        align(**toy.choices(tmp_path / "run", **choices, max_tokens="auto"))
    assert not (tmp_path / "run").exists()
    assert len(losses(align(**toy.choices(tmp_path / "run", **choices, max_tokens=400)))) == 2
