"""permute: every document in every place, both orders of two answers."""

from __future__ import annotations

import random
from typing import Any

import pytest

from _steps import made
from grainline.curation.permute import orders
from grainline.errors import DataError, SpecError

PROMPT = "Which one?\n\nDocument: red\n\nDocument: green\n\nDocument: blue\n\nQuestion: why?"
ROW = {"id": "a", "prompt": PROMPT, "chosen": "the red one", "rejected": "the blue one", "right": 2}
STEP = 'permute:end="\\n\\nQuestion"'
DUEL = {
    "id": "d",
    "prompt": [{"role": "user", "content": "Judge.\n[A] It is four.\n[B] Five, says A!\nWhich?"}],
    "chosen": "A is right: 2 + 2 = 4.",
    "rejected": [{"role": "assistant", "content": "B is right, not A."}],
}


def colours(prompt: str) -> list[str]:
    return [part.split("\n")[0].strip() for part in prompt.split("Document:")[1:]]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_each_thing_stands_in_each_place_once(count: int) -> None:
    found = orders(count, random.Random(3))
    assert found[0] == tuple(range(count))
    assert all(sorted(order) == list(range(count)) for order in found)
    assert all(len(set(place)) == count for place in zip(*found, strict=True))
    drawn = {tuple(orders(5, random.Random(seed))[1]) for seed in range(200)}
    assert len(drawn) == 24  # all 4! cycles of five places


def test_documents_by_hand() -> None:
    (rows,) = made(STEP, [ROW])
    assert len(rows) == 3
    assert rows[0] == ROW
    assert all(row["prompt"].startswith("Which one?\n\nDocument: ") for row in rows)
    assert all(row["prompt"].endswith("\n\nQuestion: why?") for row in rows)
    shown = [colours(row["prompt"]) for row in rows]
    assert [set(place) for place in zip(*shown, strict=True)] == [{"red", "green", "blue"}] * 3
    assert [row["chosen"] for row in rows] == ["the red one"] * 3
    assert rows[1]["curation"][0]["step"].startswith("permute:end=")
    assert made(STEP, [ROW]) == [rows]
    assert any(made(STEP, [ROW], seed=seed) != [rows] for seed in range(1, 9))


def test_white_space_belongs_to_the_place() -> None:
    row = {
        "id": "a",
        "prompt": [{"role": "user", "content": "See.\n[DOC] one\n[DOC] two"}],
        "chosen": "c",
        "rejected": "r",
    }
    ((_, other),) = made("permute:mark='[DOC]'", [row])
    assert other["prompt"] == [{"role": "user", "content": "See.\n[DOC] two\n[DOC] one"}]


def test_option_what() -> None:
    ((first, second),) = made('permute:what=answers,end="\\nWhich?"', [DUEL])
    assert first == DUEL
    assert second["prompt"][0]["content"] == "Judge.\n[A] Five, says A!\n[B] It is four.\nWhich?"
    assert second["chosen"] == "B is right: 2 + 2 = 4."
    assert second["rejected"] == [{"role": "assistant", "content": "A is right, not B."}]
    ((_, back),) = made('permute:what=answers,end="\\nWhich?"', [second])
    assert {key: back[key] for key in DUEL} == DUEL
    with pytest.raises(DataError, match=r"d prompt: .* do not stand there in this order"):
        made("permute:what=answers", [DUEL | {"prompt": "[B] x [A] y"}])
    with pytest.raises(DataError, match="d: no verdict says 'A' or 'B'"):
        made("permute:what=answers", [DUEL | {"chosen": "one", "rejected": "two"}])
    with pytest.raises(DataError, match="d chosen: there is no verdict"):
        made("permute:what=answers", [{key: DUEL[key] for key in ("id", "prompt")} | {"answers": ["x", "y"]}])


def test_option_mark() -> None:
    with pytest.raises(DataError, match=r"a prompt: 0 documents begin with '\[DOC\]'"):
        made("permute:mark='[DOC]'", [ROW])
    with pytest.raises(SpecError, match="an empty mark"):
        made("permute:mark=''", [ROW])


def test_option_end() -> None:
    ((_, other, _),) = made("permute", [ROW])
    assert not other["prompt"].endswith("why?") or colours(other["prompt"])[-1] == "blue"  # it went with its document
    with pytest.raises(DataError, match=r"0 documents begin with .* before 'nowhere'"):
        made("permute:end=nowhere", [ROW])


def test_option_copies() -> None:
    assert [len(rows) for rows in made(f"{STEP},copies=2", [ROW])] == [2]
    assert [len(rows) for rows in made(f"{STEP},copies=9", [ROW])] == [3]


def test_option_gold() -> None:
    (rows,) = made(f"{STEP},gold=right", [ROW])
    assert all(colours(row["prompt"])[row["right"]] == "blue" for row in rows)
    for wrong in (3, True, None):
        with pytest.raises(DataError, match=r"a right: .* is the number of none of 3 documents"):
            made(f"{STEP},gold=right", [ROW | {"right": wrong}])


def test_option_labels() -> None:
    duel: dict[str, Any] = DUEL | {"chosen": "first", "rejected": "second"}
    ((_, other),) = made("permute:what=answers,labels=[first, second]", [duel])
    assert (other["chosen"], other["rejected"]) == ("second", "first")
    with pytest.raises(DataError, match="spans would move"):
        made("permute:what=answers,labels=[first, second]", [duel | {"chosen_spans": [{"start": 0, "end": 1}]}])


def test_option_marks() -> None:
    duel = DUEL | {"prompt": [{"role": "user", "content": "1: x\n2: y"}]}
    ((_, other),) = made("permute:what=answers,marks=['1:', '2:']", [duel])
    assert other["prompt"][0]["content"] == "1: y\n2: x"
