"""What a row is called, and how its answers are read."""

from __future__ import annotations

import pytest

from grainline.curation._parts import answers, every, identity, paired, record
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


def test_what_is_known_of_an_answer_goes_with_it() -> None:
    """Taken apart and put together, a pair is what it was; turned round, so is all that tells of its answers."""
    row = {
        "id": "a",
        "prompt": "p",
        "chosen": "c",
        "rejected": "r",
        "chosen_score": 2,
        "rejected_spans": [],
        "topic": 1,
    }
    assert paired(row, *every(row)) == row
    turned = paired(row | {"margin": 1, "label": True}, *reversed(every(row)))
    assert turned == {
        "id": "a", "prompt": "p", "chosen": "r", "rejected": "c", "rejected_score": 2, "chosen_spans": [], "topic": 1
    }  # fmt: skip
    several = {"id": "a", "prompt": "p", "answers": ["x", {"text": "y", "score": 1}], "chosen_old": 3}
    assert paired(several, *reversed(every(several))) == {
        "id": "a", "prompt": "p", "chosen": "y", "rejected": "x", "chosen_score": 1
    }  # fmt: skip
    assert every({"id": "a", "prompt": "p", "completion": "c", "completion_score": 1}) == [{"text": "c", "score": 1}]
