"""An ensemble against arithmetic, numpy, and members that cannot say; and the way of its spread into updpo."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _toy import Toy, jsonl, marked
from grainline import rooms
from grainline.curate import curate
from grainline.errors import SpecError
from grainline.reward_training import Plan, train
from grainline.rewards import _seam
from grainline.rewards._seam import Asked, Desk, Duel, Scores
from grainline.rewards.ensemble import Ensemble, on_scale
from grainline.runs import align
from grainline.types import spec

NAN = math.nan


@spec
class Said:
    """A member that says what it is told, of every answer; or by the number that an answer is."""

    value: tuple[tuple[float, ...], ...] | None = None
    spread: tuple[tuple[float, ...], ...] | None = None
    between: tuple[float, float] | None = None
    wins: float | None = None
    slope: float = 1.0
    ahead: int = 1
    needs: frozenset[str] = frozenset()

    @contextmanager
    def open(self, desk: Desk) -> Iterator[Any]:
        yield Comparing(self) if self.wins is not None else Speaking(self)


class Speaking:
    def __init__(self, said: Said) -> None:
        self.said = said

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        questions = iter(asked)
        while read := [one for _, one in zip(range(self.said.ahead), questions, strict=False)]:
            yield from map(self._one, read)

    def _one(self, asked: Asked) -> Scores:
        if self.said.value is not None:
            return Scores(self.said.value, self.said.spread)
        return Scores(((self.said.slope * float(asked.answer),),))


class Comparing(Speaking):
    def compare(self, duels: Iterable[Duel]) -> Iterator[float]:
        return (self.said.wins for _ in duels)


def opened(folder: Path, *members: Said, asked: Iterable[Asked] = (Asked("p", "a"),), **options: Any) -> list[Scores]:
    with Ensemble(of=members, **options).open(Desk(folder)) as together:
        return list(together.score(asked))


def test_mean_and_total_variance(tmp_path: Path) -> None:
    members = [Said(value=((1.0, NAN), (4.0, 2.0))), Said(value=((3.0, NAN), (4.0, NAN)), spread=((0.5, NAN), (1, 1)))]
    (found,) = opened(tmp_path, *members)
    assert found.value[0][0] == 2.0
    assert found.value[1] == (4.0, 2.0)
    assert math.isnan(found.value[0][1])
    assert found.spread is not None
    assert found.spread[0][0] == pytest.approx(math.sqrt(2.0 + 0.25 / 2))
    assert found.spread[1][0] == pytest.approx(math.sqrt(1 / 2))
    assert math.isnan(found.spread[0][1])
    assert math.isnan(found.spread[1][1])  # one opinion


def test_every_answer_reaches_every_member_in_order_however_far_it_reads(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=23).tolist()
    slopes = (1.0, -2.0, 0.5)
    members = [Said(slope=slope, ahead=ahead) for slope, ahead in zip(slopes, (1, 7, 100), strict=True)]
    found = opened(tmp_path, *members, asked=(Asked("p", str(number)) for number in numbers))
    expected = np.outer(numbers, slopes)
    np.testing.assert_allclose([scores.value[0][0] for scores in found], expected.mean(1))
    np.testing.assert_allclose([scores.spread[0][0] for scores in found], expected.std(1, ddof=1))


def test_equal_bounds_are_kept_and_others_become_0_to_1(tmp_path: Path) -> None:
    stars = Said(value=((5.0,),), spread=((1.0,),), between=(1.0, 5.0))
    percent = Said(value=((50.0,),), between=(0.0, 100.0))
    same = Ensemble(of=(stars, Said(value=((2.0,),), between=(1.0, 5.0))))
    assert (same.between, opened(tmp_path, *same.of)[0].value) == ((1.0, 5.0), ((3.5,),))
    assert Ensemble(of=(stars, percent)).between == (0.0, 1.0)
    (found,) = opened(tmp_path, stars, percent)
    assert found.value == ((0.75,),)
    assert found.spread == ((pytest.approx(math.sqrt(0.5**2 / 2 + 0.25**2 / 2)),),)
    assert Ensemble(of=(Said(), Said(slope=2.0))).between is None


def test_nan_stays_on_any_scale() -> None:
    found = on_scale(Scores(((NAN, 3.0, 9.0, -9.0),), ((NAN, 1.0, 0.0, 2.0),)), ((1.0, 5.0), (0.0, 1.0)))
    assert found.value[0] == pytest.approx([NAN, 0.5, 1.0, 0.0], nan_ok=True)
    assert found.spread is not None
    assert found.spread[0] == pytest.approx([NAN, 0.25, 0.0, 0.5], nan_ok=True)


def test_comparisons_are_the_mean_of_the_members(tmp_path: Path) -> None:
    """A member without a comparison of its own speaks through its scores."""
    duels = [Duel("p", "2", "1"), Duel("p", "1", "2"), Duel("p", "1", "1")]
    with Ensemble(of=(Said(wins=0.8), Said(), Said(slope=3.0))).open(Desk(tmp_path)) as together:
        assert _seam.compare(together, duels) == pytest.approx([2.8 / 3, 0.8 / 3, 1.8 / 3])
        assert list(together.compare([])) == []


def test_it_needs_what_its_members_need() -> None:
    assert Ensemble(of=(Said(needs=frozenset({"model"})), Said(needs=frozenset({"endpoint"})))).needs == {
        "model",
        "endpoint",
    }
    assert Ensemble().needs == frozenset()


def test_members_are_closed_whatever_happens(tmp_path: Path) -> None:
    closed = []

    class Watched(Said):
        @contextmanager
        def open(self, desk: Desk) -> Iterator[Any]:
            try:
                yield Speaking(self)
            finally:
                closed.append(1)

    with pytest.raises(ValueError, match="could not convert"):
        opened(tmp_path, Watched(), Watched(), asked=[Asked("p", "no number")])
    assert len(closed) == 2


def test_an_ensemble_of_ensembles_is_a_reward(tmp_path: Path) -> None:
    text = "ensemble:of=[(ensemble:of=[rules, (rules:target=4)]), (rules:target=2)]"
    made = rooms.parse("rewards", text)
    with made.open(Desk(tmp_path)) as together:
        (found,) = together.score([Asked("p", "one two")])
    inner = [2 / 100, 2 / 4]
    assert found.value[0][0] == pytest.approx((sum(inner) / 2 + 1) / 2)
    between = (inner[0] - inner[1]) ** 2 / 2
    whole = (sum(inner) / 2 - 1) ** 2 / 2 + between / 2
    assert found.spread is not None
    assert found.spread[0][0] == pytest.approx(math.sqrt(whole))


def test_heads_of_different_layers_and_seeds_are_members(toy: Toy, tmp_path: Path) -> None:
    """Each says what it says alone; an answer's spread holds their disagreement and what each says of its own."""
    data = jsonl(tmp_path / "marked.jsonl", marked(40))
    plans = {"first": Plan(layers=(0.5,)), "last": Plan(layers=(1.0,)), "again": Plan(layers=(0.5,), seed=1)}
    for name, plan in plans.items():
        train(data, tmp_path / name, replace(plan, model=toy.model, members=3))
    asked = [Asked(row["prompt"], row["completion"], aspects=("tone",)) for row in marked(44)[40:]]

    def said(text: str) -> tuple[np.ndarray, np.ndarray]:
        with rooms.parse("rewards", text).open(Desk(tmp_path)) as reward:
            found = list(reward.score(asked))
        return np.array([s.value[0][0] for s in found]), np.array([s.spread[0][0] for s in found if s.spread])

    heads = [f"head:path={tmp_path / name}" for name in plans]
    each_KN, own_KN = np.stack([said(head) for head in heads], 1)
    mean_N, spread_N = said(f"ensemble:of=[{', '.join(f'({head})' for head in heads)}]")
    np.testing.assert_allclose(mean_N, each_KN.mean(0), rtol=1e-6)
    np.testing.assert_allclose(spread_N**2, each_KN.var(0, ddof=1) + (own_KN**2).mean(0), rtol=1e-6)
    assert (each_KN.std(0) > 0).all()


def test_its_spread_is_what_updpo_reads(toy: Toy, tmp_path: Path) -> None:
    """At policy = reference updpo's first loss is the mean over the pairs of exp(-(u_w + u_l) / tau) log 2."""
    rows = [
        {"prompt": f"tell me of the sea {n}", "chosen": "glad " * (n % 3 + 1), "rejected": "never " * (n % 2 + 1)}
        for n in range(8)
    ]
    jury = "ensemble:of=[(rules:target=2), (rules:target=5), (rules:target=9)]"
    data = tmp_path / "scored.jsonl"
    curate(jsonl(tmp_path / "rows.jsonl", rows), [f"score:reward=({jury})"], out=data, quiet=True)
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    spreads = [float(row["chosen_uncertainty"]) + float(row["rejected_uncertainty"]) for row in rows]
    assert len(set(spreads)) > 3
    run = align(**toy.choices(tmp_path / "run", data=str(data), steps=1, objective="updpo:tau=0.5"))
    expected = math.log(2) * sum(math.exp(-spread / 0.5) for spread in spreads) / 8
    assert run.metrics[0]["loss"] == pytest.approx(expected, abs=1e-5)


# --------------------------------------------------------------------------------------------------------- options


def test_option_of(tmp_path: Path) -> None:
    made = rooms.parse("rewards", "ensemble:of=[(rules:target=5), rules]")
    assert [rooms.text(member) for member in made.of] == ["rules:target=5.0", "rules"]
    assert rooms.parse("rewards", rooms.text(made)) == made
    assert rooms.resolve("rewards", {"name": "ensemble", "of": ["rules:target=5", {"name": "rules"}]}) == made
    with pytest.raises(SpecError, match="two at least"):
        rooms.parse("rewards", "ensemble:of=(rules)")
    with pytest.raises(SpecError, match="no members"), Ensemble().open(Desk(tmp_path)):
        pass
    with pytest.raises(SpecError, match="no method 'rulez'"):
        rooms.parse("rewards", "ensemble:of=[rulez, rules]")


def test_option_bounds(tmp_path: Path) -> None:
    logit, stars = Said(value=((1.0,),)), Said(value=((5.0,),), between=(1.0, 5.0))
    with pytest.raises(ValueError, match="has no bounds and others have"):
        Ensemble(of=(logit, stars))
    (found,) = opened(tmp_path, logit, stars, bounds=(-2.0, 2.0))
    assert found.value == ((0.875,),)
    (beyond,) = opened(tmp_path, Said(value=((7.0,),)), stars, bounds=(-2.0, 2.0))
    assert beyond.value == ((1.0,),)
    assert Ensemble(of=(logit, logit), bounds=(-2.0, 2.0)).between == (-2.0, 2.0)
    with pytest.raises(ValueError, match="higher is better"):
        Ensemble(of=(logit, logit), bounds=(2.0, -2.0))
