"""Families of the held-out rows, on a run."""

from __future__ import annotations

from typing import Any

import pytest

from _toy import Toy
from grainline.errors import RunError


def test_a_column_that_is_not_there(copied: Any, toy: Toy) -> None:
    with pytest.raises(RunError, match=r"no pair has a number in the column 'gold'"):
        copied().evaluate(toy.held_out, progress=False, place="gold")


def test_tokens_are_of_the_first_pairs(world: Any) -> None:
    rows, tokens = world.lines("rows.jsonl"), world.lines("tokens.jsonl")
    assert [line["id"] for line in tokens] == [row["id"] for row in rows][:12]
    for row, line in zip(rows, tokens, strict=False):
        assert line["margin"] == row["rewards/margins"]
        rewards = [sum(answer["reward"]) for answer in line["answers"]]
        assert rewards[0] - rewards[1] == pytest.approx(line["margin"], abs=1e-4)
        assert [answer["role"] for answer in line["answers"]] == ["chosen", "rejected"]


def test_fewer_pairs_are_kept(copied: Any, toy: Toy) -> None:
    run = copied()
    run.evaluate(toy.held_out, progress=False, pairs=3)
    text = (run.folder / "evaluation" / "test" / "tokens.jsonl").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 3


def test_labelled_rows(toy: Toy, tmp_path: Any) -> None:
    from grainline.runs import align

    run = align(**toy.choices(tmp_path / "run", data=toy.labelled, objective="kto"))
    found = run.evaluate(toy.labelled, progress=False)["labelled"]
    assert {"rewards/desirable", "displacement/desirable", "displacement/undesirable"} <= set(found)
    assert "length/prefers_longer" not in found
