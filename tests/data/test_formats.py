"""The folder is the registry of formats; who forgets to name one is told which it is."""

from __future__ import annotations

from itertools import combinations

import pytest

from grainline.data import formats
from grainline.data.load import read, refuse
from grainline.errors import DataError

HELPSTEER = [
    {"prompt": f"Why {n // 2}?", "response": f"So {n}.", "helpfulness": n % 2, "correctness": 1, "coherence": 4}
    for n in range(4)
]


def test_files_are_formats() -> None:
    assert {"helpsteer", "ultrafeedback", "prm800k", "math-shepherd", "fine-grained-rlhf"} <= set(formats.names())
    for name in formats.names():
        module = formats._module(name)
        assert callable(module.rows)
        assert formats.resembled(dict.fromkeys(module.SIGNATURE, 1) | {"else": 2}) == name
    signatures = [formats._module(name).SIGNATURE for name in formats.names()]
    assert not any(one <= other or other <= one for one, other in combinations(signatures, 2))


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(DataError, match=r"^no format 'helpster'\. Did you mean 'helpsteer'\? There are: "):
        read(HELPSTEER, format="helpster")


def test_the_first_problem_says_what_the_rows_look_like() -> None:
    with pytest.raises(DataError) as caught:
        refuse(read(HELPSTEER))
    assert "rows:1: the row has no answer. This looks like helpsteer: set format=helpsteer; rows:2, rows:3:" in str(
        caught.value
    )
    loaded = read(HELPSTEER, format="helpsteer")
    assert [record.where for record in loaded.records] == ["rows:1", "rows:3"]
    assert len(read(HELPSTEER, format="helpsteer", limit=2).records) == 1  # native rows are counted
    converted = {**HELPSTEER[0], "chosen": "a", "rejected": "a"}  # a row of ours that kept native columns
    assert "looks like" not in str(read([converted]).problems[0])


def test_nothing_but_ties_is_told() -> None:
    with pytest.raises(DataError, match=r"^rows: no row makes a record: 2 ties\.$"):
        read([{**row, "helpfulness": 1} for row in HELPSTEER[:2]], format="helpsteer")
