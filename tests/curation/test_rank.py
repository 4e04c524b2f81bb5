"""rank: best and worst answers of rows by rewards, with their own comparisons or by scores."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from _endpoint import Body, Reaction, Say, serving
from grainline import rooms
from grainline.curation._seam import Bench, Dropped
from grainline.errors import SpecError

LONGER = "rank:reward=(rules:measure=length,target=100,better=longer)"


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAINLINE_CACHE", str(tmp_path / "cache"))


def ranked(rows: list[dict[str, Any]], choice: str = LONGER, seed: int = 0) -> tuple[list[Any], dict[str, Any]]:
    with rooms.parse("curation", choice).open(Bench(Path("unused"), seed)) as step:
        made = list(step(rows))
        return made, step.told(row for rows in made for row in rows)


def row(*lengths: int, id: str = "a") -> dict[str, Any]:
    return {"id": id, "prompt": "Say it.", "answers": [" ".join(["so"] * n) for n in lengths]}


def scores(made: Any) -> list[float | None]:
    return [answer.get("score") for answer in made[0]["answers"]]


def test_best_and_worst_of_a_row() -> None:
    given = row(5, 9, 2, 7) | {"topic": "x"}
    given["answers"][3] = {"text": given["answers"][3], "score": 0.4, "model": "m"}
    (made,), facts = ranked([given])
    assert scores(made) == [None, 1.0, 0.0, None]
    assert made[0]["answers"][3] == {"text": "so so so so so so so", "model": "m"}
    assert made[0]["topic"] == "x"
    line = made[0]["curation"][-1]
    assert (line["ties"], line["split"]) == (0, 0)
    assert 3 <= line["comparisons"] <= 5
    assert facts == {"comparisons": line["comparisons"], "ties": 0, "split": 0}


def test_pair_makes_the_pair() -> None:
    (made,), _ = ranked([row(5, 9, 2, 7)])
    with rooms.parse("curation", "pair").open(Bench(Path("unused"))) as step:
        ((pair,),) = step(made)
    assert [len(pair[side].split()) for side in ("chosen", "rejected")] == [9, 2]


def test_a_row_is_ranked_alike_in_any_company() -> None:
    rows = [row(*lengths, id=str(n)) for n, lengths in enumerate([(3, 1, 2), (4, 4, 4, 9), (8, 2), (1, 2, 3, 4, 5, 6)])]
    together, _ = ranked(rows)
    assert [ranked([one])[0][0] for one in rows] == together


def test_rows_that_cannot_be_ranked() -> None:
    (one, same, equal), _ = ranked([row(3), row(4, 4), row(200, 300)])
    assert all(isinstance(found, Dropped) for found in (one, same, equal))
    assert (one.why, same.why) == ("fewer than two answers",) * 2
    assert equal.why == "no answer is better than another"


def judge(body: Body) -> Reaction:
    """Longer is better, whatever the place; but between answers of "ah" always the first."""
    text = body["messages"][-1]["content"]
    first, second = (text.split(f"<{which}-")[1].split("</")[0].split("\n")[1] for which in ("first", "second"))
    if "ah" in first and "ah" in second:
        return Say('{"reason": "", "better": "first"}')
    return Say(json.dumps({"reason": "", "better": "first" if len(first) > len(second) else "second"}))


def asked(url: str, more: str = "") -> str:
    return f'rank:reward=(judge:model=m,base_url="{url}",swap=false,retries=0){more}'


def test_option_reward() -> None:
    with serving(otherwise=judge) as server:
        (made,), _ = ranked([row(5, 9, 2, 7)], asked(server.url))
    assert scores(made) == [None, 1.0, 0.0, None]
    with pytest.raises(SpecError, match=r"rank: no reward.*judge:model"):
        ranked([row(1, 2)], "rank")


def test_option_swap() -> None:
    """A judge with a liking for the first place is found out, at twice the calls."""
    given = {"id": "a", "prompt": "p", "answers": ["ah", "ah ah"]}
    with serving(otherwise=judge) as server:
        (dropped,), _ = ranked([given], asked(server.url))
        calls = len(server.bodies)
        (made,), facts = ranked([given], asked(server.url, ",swap=false"))
    assert dropped.why == "no answer is better than another"
    assert calls == 2
    assert sorted(scores(made)) == [0.0, 1.0]  # whoever was drawn to stand first
    assert facts["split"] == 0
    with serving(otherwise=judge) as server:
        (made,), facts = ranked([given | {"answers": ["ah", "ah ah", "oh yes oh yes"]}], asked(server.url))
    assert scores(made)[2] == 1.0
    assert (facts["split"], facts["ties"]) == (1, 1)


def test_option_way() -> None:
    given = row(5, 9, 2, 7)
    wanted = [1 / 3, 1.0, 0.0, 2 / 3]
    for way, number in (("insertion", range(4, 6)), ("robin", [6]), ("knockout", [4])):
        (made,), facts = ranked([given], f"{LONGER},way={way}")
        assert scores(made) == (pytest.approx(wanted) if way != "knockout" else [None, 1.0, 0.0, None])
        assert facts["comparisons"] in number


def test_option_other() -> None:
    found = [scores(ranked([row(*range(1, 9))], f"{LONGER},other=loser", seed)[0][0]) for seed in range(12)]
    assert {one[7] for one in found} == {1.0}
    assert len({one.index(0.0) for one in found}) > 2
    assert ranked([row(*range(1, 9))], f"{LONGER},other=loser")[1]["comparisons"] == 7
    with pytest.raises(ValueError, match="other=loser is read with"):
        rooms.parse("curation", f"{LONGER},other=loser,way=robin")


def test_option_check() -> None:
    _, facts = ranked([row(5, 9, 2, 7), row(1, 2, 3, id="b")], f"{LONGER},check=true")
    assert (facts["best_agrees"], facts["worst_agrees"]) == (1.0, 1.0)
    assert facts["comparisons"] < 6 + 3
    # 1 beats 2 beats 3 beats 1 is a circle; 4 beats two of them: an iterative pass need not find what a robin finds.
    beats = {"a": "bc", "b": "cd", "c": "d", "d": "a"}

    def circle(body: Body) -> Reaction:
        text = body["messages"][-1]["content"]
        first, second = (text.split(f"<{which}-")[1].split("</")[0].split("\n")[1] for which in ("first", "second"))
        return Say(json.dumps({"reason": "", "better": "first" if second in beats[first] else "second"}))

    rows = [{"id": str(n), "prompt": "p", "answers": list("abcd")} for n in range(8)]
    with serving(otherwise=circle) as server:
        _, facts = ranked(rows, asked(server.url, ",check=true"))
    assert 0 < facts["best_agrees"] < 1


@pytest.mark.real
def test_real_answers(shared_data: Path) -> None:
    """Four answers a question: the longest by a rule, against brute force, with fewer comparisons than a robin."""
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    prompts: dict[str, Any] = {}
    with gzip.open(shared_data / "qa_feedback" / "prefs_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        for one in map(json.loads, lines):
            groups[one["group"]] |= dict.fromkeys((one["chosen"], one["rejected"]))
            prompts[one["group"]] = one["prompt"]
    rows = [{"id": g, "prompt": prompts[g], "answers": list(texts)} for g, texts in groups.items() if len(texts) > 2]
    assert len(rows) > 50
    made, facts = ranked(rows, "rank:reward=(rules:measure=length,target=100,better=near),check=true")
    with rooms.parse("curation", "score:reward=(rules:measure=length,target=100,better=near)").open(
        Bench(Path("unused"))
    ) as step:
        scored = [found for (found,) in step(rows)]
    for found, brute in zip(made, scored, strict=True):
        by_score = [answer["score"] for answer in brute["answers"]]
        best, worst = (scores(found).index(end) for end in (1.0, 0.0))
        assert (by_score[best], by_score[worst]) == (max(by_score), min(by_score))
    assert (facts["best_agrees"], facts["worst_agrees"]) == (1.0, 1.0)
