"""What a row is called, and how its answers are read."""

from __future__ import annotations

import pytest

from grainline.curation._parts import answers, identity, record
from grainline.errors import DataError


def test_a_row_is_its_id_or_its_content() -> None:
    assert identity({"id": 7, "prompt": "p"}) == "7"
    assert identity({"prompt": "p", "id": None}) == identity({"id": None, "prompt": "p"}) != identity({"prompt": "q"})


def test_a_record_is_named_by_its_row() -> None:
    assert record({"id": "a", "prompt": "p", "chosen": "c", "rejected": "r"}).answers[0].text == "c"
    with pytest.raises(DataError, match=r"^a: column 'rejected' is missing"):
        record({"id": "a", "prompt": "p", "chosen": "c"})


def test_answers_are_objects() -> None:
    given = [{"text": "x", "score": 1}, "y"]
    assert answers({"id": "a", "answers": given}) == [{"text": "x", "score": 1}, {"text": "y"}]
    for wrong, where in ((None, "a answers"), ("x", "a answers"), ([], "a answers"), ([3], r"a answers\[0\]")):
        with pytest.raises(DataError, match=f"^{where}: "):
            answers({"id": "a", "answers": wrong})
