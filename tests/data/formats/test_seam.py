"""What a format cannot read stands in the row's place; the rows after it still come."""

from __future__ import annotations

from grainline.data.files import Row
from grainline.data.formats import _seam
from grainline.errors import DataError


def test_each_row_keeps_its_place() -> None:
    broken = DataError("broken JSON.", where="a:2")
    rows = [Row("a:1", "a:1", {"n": 1}), Row("a:2", "a:2", broken), Row("a:3", "a:3", {}), Row("a:4", "a:4", {"n": 9})]

    def convert(row: object, where: str) -> dict[str, float] | _seam.Skipped:
        value = _seam.score(_seam.mapping(row, where=where), "n", scale=(0, 9), where=where)
        return _seam.Skipped("nines") if value == 9 else {"n": value}

    found = list(_seam.each(rows, convert))
    assert [row[:2] for row in found] == [row[:2] for row in rows]
    assert (found[0].row, found[1].row, found[3].row) == ({"n": 1.0}, broken, _seam.Skipped("nines"))
    assert str(found[2].row) == "a:3 n: null is not a finite number."


def test_the_whole_answer_is_judged() -> None:
    spans = [{"start": 0, "end": 3, "aspect": "tone", "score": 2}, {"start": 0, "end": 3, "aspect": "", "score": 0}]
    assert _seam.whole("Yes", {"tone": 2, "": 0}) == spans
