"""Which answers stand against which, what becomes of the columns, and which rows make no pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from grainline.curation._seam import Bench, Dropped
from grainline.curation.pair import Pair
from grainline.data import columns
from grainline.errors import DataError

BENCH = Bench(Path("unused"))


def row(*scores: float | None, id: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": id, "prompt": "p", "answers": [{"text": f"t{n}", "score": s} for n, s in enumerate(scores)]} | more


def pairs(step: Pair, *rows: Any, seed: int = 0) -> list[Sequence[Any]]:
    with step.open(BENCH._replace(seed=seed)) as each:
        return list(each(rows))


def texts(step: Pair, *scores: float | None) -> list[tuple[str, str]]:
    (made,) = pairs(step, row(*scores))
    return [(one["chosen"], one["rejected"]) for one in made]


def test_the_row_becomes_a_pair_that_training_reads() -> None:
    better = {
        "text": "b",
        "score": 0.75,
        "model": "m",
        "segments": [[0, 1]],
        "aspect_scores": [[0.75]],
        "finish": "stop",
    }
    worse = {"text": "w", "score": 0.5, "segments": [[0, 1]], "aspect_scores": [[0.5]]}
    old = {"chosen": "x", "rejected": "y", "chosen_spans": [{"start": 0, "end": 1}], "label": True, "topic": "sea"}
    given = {"id": "a", "prompt": "p", "answers": [worse, better], "aspect_names": ["overall"]} | old
    ((made,),) = pairs(Pair(), given)
    assert made["margin"] == 0.25
    assert (made["chosen"], made["rejected"], made["topic"]) == ("b", "w", "sea")
    assert (made["chosen_model"], made["chosen_score"], made["rejected_score"]) == ("m", 0.75, 0.5)
    assert not {"answers", "chosen_spans", "label"} & set(made)
    assert made["curation"] == [{"step": "pair"}]
    read = columns.record(made, where="here", id="a")
    assert read.margin == 0.25
    assert [one.spans[0].score for one in read.answers] == [0.75, 0.5]
    assert given["answers"] == [worse, better]  # nothing is changed in place


def test_rows_that_make_no_pair_say_why() -> None:
    few = "fewer than two answers with a score"
    for given, step, why in (
        (row(1.0), Pair(), few),
        (row(1.0, None), Pair(), few),
        (row(1.0, 1.0), Pair(), "all scores are equal"),
        (row(1.0, 1.5), Pair(margin=0.5), "no two answers differ by more than the margin"),
    ):
        (made,) = pairs(step, given)
        assert isinstance(made, Dropped)
        assert made.why == why
    twice = {"id": "a", "prompt": "p", "answers": [{"text": "t", "score": n} for n in (1, 2)]}
    assert pairs(Pair(), twice)[0].why == few  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"a answers\[1\]\.score: 'good' \(str\) is no score"):
        pairs(Pair(), row(1.0, "good"))  # type: ignore[arg-type]


def test_option_of() -> None:
    scores = (0.2, 0.9, None, 0.1, 0.9)
    assert texts(Pair(), *scores) == [("t1", "t3")]
    every = [("t1", "t0"), ("t1", "t3"), ("t4", "t0"), ("t4", "t3"), ("t0", "t3")]
    assert texts(Pair(of="all"), *scores) == every
    drawn = Counter(
        (made["chosen"], made["rejected"])
        for n in range(200)
        for made in pairs(Pair(of="random"), row(*scores, id=str(n)))[0]
    )
    assert set(drawn) == {("t1", "t0"), ("t1", "t3")}  # never one that is as good
    assert 70 < drawn["t1", "t0"] < 130
    again = pairs(Pair(of="random"), *(row(*scores, id=str(n)) for n in range(20)))
    assert again == pairs(Pair(of="random"), *(row(*scores, id=str(n)) for n in range(20)))
    assert again != pairs(Pair(of="random"), *(row(*scores, id=str(n)) for n in range(20)), seed=1)


def test_option_margin() -> None:
    assert texts(Pair(of="all", margin=0.3), 0.0, 0.3, 0.7) == [("t2", "t1"), ("t2", "t0")]
    assert texts(Pair(margin=0.3), 0.0, 0.3, 0.7) == [("t2", "t0")]


def test_option_ties() -> None:
    """DNPO's labels: the data's own answer stands first, and gives way to a better one alone."""
    assert texts(Pair(ties="first"), 0.5, 0.5) == [("t0", "t1")]
    assert texts(Pair(ties="first"), 0.5, 0.6) == [("t1", "t0")]
    assert texts(Pair(ties="first", of="all"), 0.5, 0.5, 0.5) == [("t0", "t1"), ("t0", "t2"), ("t1", "t2")]
    (made,) = pairs(Pair(ties="first"), row(0.5, 0.5))
    assert made[0]["margin"] == 0.0
