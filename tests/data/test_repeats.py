"""Rows that repeat, contradict or leak are named with the row beside them, whatever the distance between the two."""

from __future__ import annotations

from typing import Any

import pytest

from grainline.data import load, repeats
from grainline.data.repeats import (
    AGAIN,
    AGAINST,
    NEARLY,
    SAME_ID,
    SHARED,
    Ledger,
    Places,
    Prompts,
    digest,
    prompt_digest,
)
from grainline.types import Record

LONG = "the quick brown fox jumps over the lazy dog and then sleeps in the shade of an old oak tree by the river"


def ask(words: str, system: str = "") -> list[dict[str, str]]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": words}]


def pair(prompt: Any, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def records(*rows: dict[str, Any]) -> list[Record]:
    return [row for row in load.stream(list(rows))[1] if isinstance(row, Record)]


def found(*rows: dict[str, Any], test: Prompts | None = None) -> list[tuple[str, str, str]]:
    ledger = Ledger()
    ledger.add(records(*rows))
    return [(p.kind, p.where, p.beside) for p in ledger.problems(test)]


def test_places() -> None:
    places = Places()
    given = ["a.jsonl:1", "a.jsonl:9", "org/b:3", "", "nowhere", "c:d:7", "a.jsonl:1"]
    for where in given:
        places.append(where)
    assert [places[n] for n in range(len(places))] == given


def test_digests() -> None:
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("\ud800") != digest("")  # JSON can hold half a character
    one, other, system = records(
        pair(ask("A  b?"), "x", "y"), pair(ask("a B?\n"), "x", "y"), pair(ask("a b?", "be"), "x", "y")
    )
    assert prompt_digest(one) == prompt_digest(other) != prompt_digest(system)


def test_the_same_row_again() -> None:
    rows = [pair(ask(f"{n}?"), "yes", "no") for n in range(3)]
    assert found(*rows, pair(ask(" 1?"), "yes", "no")) == [(AGAIN, "rows:4", "rows:2")]
    assert found(pair("a ?", "yes", "no"), pair("A  ?", "yes", "no"), pair("A  ?", "yes", "No")) == [
        (AGAIN, "rows:2", "rows:1"), (NEARLY, "rows:3", "rows:2"),
    ]  # fmt: skip


def test_repeats_come_in_the_order_of_rows() -> None:
    rows = [pair(ask(f"{n}?"), "yes", "no") for n in range(50)]
    assert [where for _, where, _ in found(*rows, *rows)] == [f"rows:{n}" for n in range(51, 101)]


def test_contradictions() -> None:
    rows = pair(ask("a"), "yes", "no"), pair(ask("b"), "no", "yes"), pair(ask("a"), "no", "yes")
    assert found(*rows) == [(AGAINST, "rows:3", "rows:1")]
    assert found(*rows, rows[2]) == [
        (AGAINST, "rows:3", "rows:1"), (AGAINST, "rows:4", "rows:1"), (AGAIN, "rows:4", "rows:3"),
    ]  # fmt: skip


def test_contradictions_of_labelled_rows() -> None:
    right = {"prompt": "a?", "completion": "yes", "label": True}
    assert found(right, {**right, "completion": "no"}) == []
    assert found(right, right) == [(AGAIN, "rows:2", "rows:1")]
    assert found(right, {**right, "label": False}) == [(AGAINST, "rows:2", "rows:1")]


def test_nearly_the_same() -> None:
    row = pair(ask(LONG), f"{LONG} today", f"no {LONG}")
    near = pair(ask(LONG.upper() + "!"), f"{LONG}, today.", f"no {LONG}...")
    swapped = pair(ask(LONG), f"no {LONG}!", f"{LONG} today!")
    other = pair(ask(LONG), "I would rather not say.", "Nobody knows that.")
    assert found(row, other, near) == [(NEARLY, "rows:3", "rows:1")]
    assert found(row, other, swapped) == [(NEARLY, "rows:3", "rows:1")]


def test_ids() -> None:
    rows = [pair(ask(f"{n}?"), f"yes {n}", f"no {n}", id=id) for n, id in enumerate(["a", "b", "a", "a"])]
    assert found(*rows) == [(SAME_ID, "rows:3 id", "rows:1"), (SAME_ID, "rows:4 id", "rows:1")]
    # the reader that keeps all rows finds the same ones
    assert [p.where for p in load.read(rows).problems] == ["rows:3 id", "rows:4 id"]


def test_prompts_of_the_test_set() -> None:
    test = Prompts()
    test.add(records(pair(ask("z"), "q", "r"), pair(ask("B"), "q", "r"), pair(ask("b"), "s", "t")))
    rows = pair(ask("a"), "1", "2"), pair(ask(" b"), "3", "4"), pair(ask("b", "Be kind."), "5", "6")
    assert found(*rows, test=test) == [(SHARED, "rows:2", "rows:2")]
    ledger = Ledger()
    ledger.add(records(*rows))
    assert ledger.distinct_prompts == 3
    (problem,) = ledger.problems(test)
    assert problem.what == "the prompt is also that of rows:2 in the test set."


def test_nothing_repeats_in_nothing() -> None:
    assert list(Ledger().problems(None)) == []
    assert Ledger().distinct_prompts == 0


@pytest.mark.parametrize("size", [1, 7, 100])
def test_chunks_change_nothing(size: int) -> None:
    rows = records(*(pair(ask(f"{n % 20}?"), f"yes {n % 4}", f"no {n % 5}") for n in range(100)))
    whole, parts = Ledger(), Ledger()
    whole.add(rows)
    for start in range(0, 100, size):
        parts.add(rows[start : start + size])
    assert list(parts.problems(None)) == list(whole.problems(None)) != []
    assert repeats.AGAIN in {p.kind for p in whole.problems(None)}
