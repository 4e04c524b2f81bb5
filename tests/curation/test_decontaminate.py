"""decontaminate: prompts of the test set, whole or in good part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from _steps import left, made, pair
from _toy import jsonl
from grainline import rooms
from grainline.errors import DataError, SpecError

TEST = "one two three four five six seven eight nine ten"


@pytest.fixture
def against(tmp_path: Path) -> str:
    rows = [pair("t") | {"prompt": TEST}, pair("u") | {"prompt": "Who is it?"}]
    return f"against={jsonl(tmp_path / 'test.jsonl', rows)}"


def asked(*prompts: str) -> list[dict[str, Any]]:
    return [pair(str(n)) | {"prompt": prompt} for n, prompt in enumerate(prompts)]


def test_prompts_of_the_test_set_are_dropped(against: str) -> None:
    talk = pair("talk") | {"prompt": [{"role": "user", "content": f"Now. {TEST.upper()}!"}]}
    rows = [*asked("who is it", "Who is he?", f"Please: {TEST}"), talk]
    assert made(f"decontaminate:{against}", rows) == [
        "the prompt is in the test set", [rows[1]], "the prompt is in the test set", "the prompt is in the test set"
    ]  # fmt: skip


def test_coverage_by_hand(against: str) -> None:
    """The test prompt has 10 - 4 + 1 = 7 runs of 4 words; the row's prompt has the first 3 of them."""
    row = asked("one two three four five six and more")
    assert left(f"decontaminate:{against},size=4,share={3 / 7}", row) == []
    assert left(f"decontaminate:{against},size=4,share={3 / 7 + 1e-9}", row) == ["0"]


def test_likeness_by_hand(against: str) -> None:
    """Of 5 runs in the row and 7 in the test prompt 3 are shared: 3 / (5 + 7 - 3)."""
    row = asked("one two three four five six and more")
    assert left(f"decontaminate:{against},size=4,by=jaccard,share={3 / 9}", row) == []
    assert left(f"decontaminate:{against},size=4,by=jaccard,share={3 / 9 + 1e-9}", row) == ["0"]


def test_option_against(against: str, tmp_path: Path) -> None:
    assert rooms.parse("curation", f"decontaminate:{against}").reads == (against.removeprefix("against="),)
    with pytest.raises(SpecError, match="which test set"):
        made("decontaminate", [])
    (tmp_path / "bad.jsonl").write_text('{"prompt": "p"}\n')
    with pytest.raises(DataError, match=r"bad.jsonl:1: the row has no answer"):
        made(f"decontaminate:against={tmp_path}/bad.jsonl", [])


def test_option_split(tmp_path: Path) -> None:
    jsonl(tmp_path / "spare.jsonl", asked("a b c"))
    assert left(f"decontaminate:against={tmp_path},split=spare", asked("A b c", "d")) == ["1"]


def test_option_format(tmp_path: Path) -> None:
    ratings = dict.fromkeys(("helpfulness", "correctness", "coherence"), 1)
    native = [{"prompt": "a b c", "response": f"r{n}", **ratings, "helpfulness": n} for n in range(2)]
    file = jsonl(tmp_path / "native.jsonl", native)
    assert left(f"decontaminate:against={file},format=helpsteer", asked("A b c", "d")) == ["1"]


def test_option_by(against: str) -> None:
    rows = asked(f"{TEST} " + " ".join(f"more{n}" for n in range(40)))
    assert left(f"decontaminate:{against},by=coverage", rows) == []
    assert left(f"decontaminate:{against},by=jaccard", rows) == ["0"]


def test_option_size(against: str) -> None:
    rows = asked("two three of them, one two of others, nine ten")
    assert left(f"decontaminate:{against},size=2,share=0.3", rows) == []
    assert left(f"decontaminate:{against},size=3,share=0.3", rows) == ["0"]


def test_option_share(against: str) -> None:
    rows = asked("one two three four five six seven eight, then others")
    assert left(f"decontaminate:{against},share=0.3", rows) == []
    assert left(f"decontaminate:{against},share=0.5", rows) == ["0"]
