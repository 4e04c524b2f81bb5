"""split: disjoint in prompts, exact in size, the same in any order."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest

from _steps import made, pair
from grainline.errors import DataError, SpecError


def rows(prompts: int, each: int = 3) -> list[dict[str, Any]]:
    return [
        pair(f"{p}-{n}") | {"prompt": f"Why  {p}?" if n else f"why {p}?"} for p in range(prompts) for n in range(each)
    ]


def parts(step: str, given: list[dict[str, Any]], **how: Any) -> dict[str, set[str]]:
    found = defaultdict(set)
    for (row,) in made(step, given, **how):
        found[row["split"]].add(" ".join(row["prompt"].lower().split()))
    return found


def test_prompts_are_parted_and_nothing_is_lost() -> None:
    found = parts("split:test=0.2,validation=0.1", rows(50))
    assert {name: len(prompts) for name, prompts in found.items()} == {"train": 35, "test": 10, "validation": 5}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    ((row,), *_) = made("split:test=0.2", rows(50))
    assert row["curation"] == [{"step": "split:test=0.2"}]


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    given = rows(40)
    shuffled = random.Random(0).sample(given, len(given))
    assert parts("split", given) == parts("split", shuffled)
    assert parts("split", given, seed=1) != parts("split", given)


def test_prompts_hardly_move_when_rows_are_added() -> None:
    before, after = parts("split:test=0.25", rows(40)), parts("split:test=0.25", rows(44))
    assert len(before["test"] - after["test"]) <= 4


def test_option_test() -> None:
    assert len(parts("split:test=0.5", rows(10))["test"]) == 5
    assert set(parts("split:test=0", rows(10))) == {"train"}
    with pytest.raises(DataError, match=r"3 prompts are too few for a test set of 0.1"):
        made("split", rows(3))
    with pytest.raises(DataError, match="1 prompts are too few to be parted so"):
        made("split:test=0.6", rows(1))


def test_option_validation() -> None:
    assert len(parts("split:validation=0.3", rows(10))["validation"]) == 3
    with pytest.raises(SpecError, match="leave nothing to train on"):
        made("split:test=0.5,validation=0.5", rows(10))
