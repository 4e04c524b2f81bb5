"""A run measured in all families, once, and rewards to judge it by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from _toy import Toy, jsonl
from grainline.runs import Run

REWARDS = '''
"""Two rewards: the share of warm words, from 0 to 1; and one that likes whoever speaks first."""

import contextlib

from grainline.rewards._seam import Scores
from grainline.types import spec

WARM = {"glad", "kind", "yes", "sure", "warm", "good"}


@spec
class Warmth:
    between = (0.0, 1.0)
    needs = frozenset()

    @contextlib.contextmanager
    def open(self, desk):
        yield self

    def score(self, asked):
        for one in asked:
            words = one.answer.split()
            share = sum(word in WARM for word in words) / len(words) if words else float("nan")
            yield Scores(((share,),))


@spec
class Early:
    between = None
    needs = frozenset()

    @contextlib.contextmanager
    def open(self, desk):
        yield self

    def score(self, asked):
        raise AssertionError("it compares")

    def compare(self, duels):
        return iter([1.0] * len(duels))
'''


class World(NamedTuple):
    run: Run
    folder: Path  # of the evaluation
    figures: dict[str, float]
    toy: Toy
    rewards: str

    def facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def copied(toy_run: Run, toy_world: Toy, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A copy of the toy run, for tests that write into it."""

    def copy() -> Run:
        folder = tmp_path_factory.mktemp("copy") / "run"
        shutil.copytree(toy_run.folder, folder)
        return Run(folder)

    return copy


@pytest.fixture(scope="session")
def world(copied: Any, toy_world: Toy, tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAINLINE_CACHE", str(toy_world.root / "cache"))
        rewards = tmp_path_factory.mktemp("rewards") / "mine.py"
        rewards.write_text(REWARDS, encoding="utf-8")
        rows = [json.loads(line) for line in Path(toy_world.held_out).read_text(encoding="utf-8").splitlines()]
        held_out = jsonl(rewards.parent / "test.jsonl", [row | {"place": i % 2} for i, row in enumerate(rows)])
        run = copied()
        found = run.evaluate(
            {"test": held_out},
            progress=False,
            families=["preference", "displacement", "geometry", "forgetting", "masks"],
            generate=6,
            max_new_tokens=12,
            judge=f"{rewards}:Warmth",
            levels={"warm": [1, 10]},
            place="place",
        )
        return World(run, run.folder / "evaluation" / "test", found["test"], toy_world, str(rewards))
