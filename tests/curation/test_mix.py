"""mix: rows of several sources, each as often as its weight says, spread evenly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from _steps import left, made, pair
from _toy import jsonl
from grainline import rooms
from grainline.data import load, mixture
from grainline.errors import DataError, SpecError


def rows(name: str, count: int) -> list[dict[str, Any]]:
    return [pair(f"{name}{n}") for n in range(count)]


@pytest.fixture
def other(tmp_path: Path) -> str:
    return jsonl(tmp_path / "other.jsonl", rows("b", 6))


def test_rows_of_the_other_source_are_spread_evenly(other: str) -> None:
    found = made(f"mix:sources={{{other}: 1}}", rows("a", 3))
    assert [[row["id"] for row in one] for one in found] == [["a0", "b0", "b1"], ["a1", "b2", "b3"], ["a2", "b4", "b5"]]
    assert found[0][0] == pair("a0")
    assert found[0][1]["curation"][0]["source"] == other


def test_the_rows_that_a_recipe_with_weights_draws(other: str, tmp_path: Path) -> None:
    """The same rows as ``data: [{path, weight}, ...]`` has under this seed."""
    own = jsonl(tmp_path / "own.jsonl", rows("a", 5))
    weights = ((own, 1.4), (other, 2.5))
    theirs = mixture.mix([(load.read(path).records, weight) for path, weight in weights], seed=7)
    ours = left(f"mix:weight=1.4,sources={{{other}: 2.5}}", rows("a", 5), seed=7)
    assert sorted(ours) == sorted(record.id for record in theirs)
    assert len(ours) == 7 + 15


def test_ids_are_each_ones_own(tmp_path: Path) -> None:
    same = jsonl(tmp_path / "same.jsonl", [*rows("a", 2), pair("a0#2")])
    assert sorted(left(f"mix:sources={{{same}: 2}}", rows("a", 2))) == sorted(
        ["a0", "a1", "a0#2", "a1#2", "a0#2#2", "a0#3", "a1#3", "a0#2#3"]
    )


def test_option_sources(other: str) -> None:
    assert len(left(f"mix:sources={{{other}: 0.5}}", rows("a", 2))) == 2 + 3
    assert rooms.parse("curation", f"mix:sources={{{other}: 0.5}}").reads == (other,)
    with pytest.raises(SpecError, match="weights are above zero"):
        made("mix:sources={x: 0}", [])
    with pytest.raises(SpecError, match="which sources"):
        made("mix", [])
    Path(other).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"other.jsonl:1: broken JSON"):
        made(f"mix:sources={{{other}: 1}}", rows("a", 2))


def test_option_weight(other: str) -> None:
    found = made(f"mix:weight=0.5,sources={{{other}: 0.17}}", rows("a", 4))
    assert sum(one == "not drawn" for one in found) in (1, 2)  # one of the others stands in somebody's place, or beside
    assert sum(len(one) for one in found if isinstance(one, list)) == 2 + 1
    assert len(left(f"mix:weight=3,sources={{{other}: 0.17}}", rows("a", 4))) == 12 + 1


def test_option_split(tmp_path: Path) -> None:
    jsonl(tmp_path / "spare.jsonl", rows("b", 2))
    assert left(f"mix:sources={{{tmp_path}: 1}},split=spare", rows("a", 1)) == ["a0", "b0", "b1"]


def test_option_format(tmp_path: Path) -> None:
    ratings = dict.fromkeys(("helpfulness", "correctness", "coherence"), 1)
    native = [{"prompt": "p", "response": f"r{n}", **ratings, "helpfulness": n} for n in range(2)]
    file = jsonl(tmp_path / "native.jsonl", native)
    ((_, row),) = made(f"mix:sources={{{file}: 1}},format=helpsteer", rows("a", 1))
    assert (row["chosen"], row["rejected"]) == ("r1", "r0")
