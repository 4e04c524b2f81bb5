"""Every step of curation, by the room's interface alone; and the seam."""

from __future__ import annotations

from pathlib import Path

import pytest

from grainline import rooms
from grainline.curation._seam import Bench, Dropped, identity, signed

NAMES = rooms.names("curation")


@pytest.mark.parametrize("name", NAMES)
def test_a_step_states_what_it_is_and_needs(name: str) -> None:
    spec = rooms.load("curation", name)()
    assert isinstance(spec.whole, bool)
    assert set(spec.needs) <= {"answers", "pairs", "reward", "model", "endpoint"}
    assert rooms.parse("curation", rooms.text(spec)) == spec


def test_luck_belongs_to_a_row(tmp_path: Path) -> None:
    bench = Bench(tmp_path, seed=3)
    first = bench.luck({"id": "a", "prompt": "p"}).random()
    assert bench.luck({"prompt": "other", "id": "a"}).random() == first  # the id is the row
    assert bench.luck({"id": "b"}).random() != first
    assert bench._replace(seed=4).luck({"id": "a"}).random() != first
    without = {"prompt": "p", "chosen": "c"}
    assert identity(without) == identity(dict(reversed(without.items())))


def test_a_row_keeps_its_history() -> None:
    row = {"id": "a", "curation": [{"step": "segment"}]}
    assert signed(row, "score:reward=rules", model="m")["curation"] == [
        {"step": "segment"},
        {"step": "score:reward=rules", "model": "m"},
    ]
    assert row["curation"] == [{"step": "segment"}]  # nothing is changed in place


def test_a_dropped_row_is_no_rows_and_a_reason() -> None:
    assert list(Dropped("too long")) == []
    assert not Dropped("too long")
    assert Dropped("too long").why == "too long"
