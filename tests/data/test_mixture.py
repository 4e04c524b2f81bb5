"""A mixture holds each source as often as its weight says, the same for the same seed, under unique ids."""

from __future__ import annotations

from collections import Counter

import pytest

from grainline.data.load import read
from grainline.data.mixture import mix
from grainline.errors import DataError
from grainline.types import Record


def source(name: str, count: int) -> list[Record]:
    rows = [{"id": f"{name}{n}", "prompt": "a", "chosen": f"b{n}", "rejected": "c"} for n in range(count)]
    return read(rows).records


def test_whole_weights_repeat_and_shares_draw_without_replacement() -> None:
    mixed = mix([(source("x", 10), 2.5), (source("y", 4), 1), (source("z", 9), 0.3)], seed=0)
    texts = Counter(record.id.split("#")[0] for record in mixed)
    assert sorted(texts[f"x{n}"] for n in range(10)) == [2] * 5 + [3] * 5
    assert [texts[f"y{n}"] for n in range(4)] == [1] * 4
    assert sorted(texts[f"z{n}"] for n in range(9)) == [0] * 6 + [1] * 3
    assert len({record.id for record in mixed}) == len(mixed) == 32
    assert [r.id for r in mixed[:11]] == [f"x{n}" for n in range(10)] + ["x0#2"]


def test_the_seed_decides_and_sources_are_independent() -> None:
    x, y = source("x", 50), source("y", 50)
    first = mix([(x, 0.5), (y, 0.5)], seed=1)
    assert mix([(x, 0.5), (y, 0.5)], seed=1) == first
    assert mix([(x, 0.5), (y, 0.5)], seed=2) != first
    assert [r.id[1:] for r in first[:25]] != [r.id[1:] for r in first[25:]]
    assert mix([(x, 0.5), (y, 1.0)], seed=1)[:25] == first[:25]


def test_one_source_once_is_itself() -> None:
    x = source("x", 3)
    assert mix([(x, 1)], seed=5) == x


def test_ids_that_collide_are_numbered_around_those_that_exist() -> None:
    x = source("x", 1)
    taken = [x[0]._replace(id="x0#2")]
    assert [r.id for r in mix([(x, 1), (taken, 1), (x, 1)], seed=0)] == ["x0", "x0#2", "x0#3"]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_above_zero(weight: float) -> None:
    with pytest.raises(DataError, match=r"^source 2: weight .* is not above zero\.$"):
        mix([(source("x", 1), 1), (source("y", 1), weight)], seed=0)


def test_kinds_do_not_mix_and_something_is_left() -> None:
    labelled = read([{"prompt": "a", "completion": "b"}]).records
    with pytest.raises(DataError, match="pairs and labelled rows are mixed"):
        mix([(source("x", 1), 1), (labelled, 1)], seed=0)
    with pytest.raises(DataError, match="the mixture has no rows"):
        mix([(source("x", 2), 0.1)], seed=0)
