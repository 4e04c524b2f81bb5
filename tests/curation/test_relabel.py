"""relabel: the released functions on their own example, the swap that one of them forgot, and what training reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from grainline import rooms
from grainline.curation._seam import Bench, Dropped
from grainline.data import columns
from grainline.data.conditions import Condition, conditioned
from grainline.errors import DataError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "curation.json").read_text(encoding="utf-8"))
RELEASE = GOLDEN["reward_augmented"]["cases"]
PAIR = {
    "id": "a",
    "prompt": [{"role": "user", "content": "Q"}],
    "chosen": "GOOD",
    "rejected": "BAD",
    "chosen_score": 1.0,
    "rejected_score": 0.5,
    "rejected_spans": [{"start": 0, "end": 1}],
}


def made(row: dict[str, Any], options: str = "") -> Any:
    with rooms.parse("curation", f"relabel{options}").open(Bench(Path("unused"))) as step:
        (found,) = step([row])
    return found


def talk(row: dict[str, Any], side: str) -> list[list[str]]:
    """Turns as the release writes them, texts cut to the last line of the goal and the question."""
    turns = [*row["prompt"], {"role": "assistant", "content": row[side]}]
    return [[turn["role"], turn["content"][turn["content"].find("Overall score") :]] for turn in turns]


@pytest.mark.parametrize("place", ["system", "user"])
def test_the_release(place: str) -> None:
    """Its example row, by its own four functions. Our wording differs; the scale's line, the roles and the answers do
    not, save that the low goal swaps the answers without a system's turn, too."""
    example = RELEASE["example"] | {"id": "a"}
    for side in ("chosen", "rejected"):
        example[f"{side}_overall"] = example.pop(f"overall_score_{side}")
    suffix = {"system": "", "user": "_nosys"}[place]
    both = made(example, f":score=overall,between=[1,10],place={place}")
    for row, function in zip(both, ("add_pos_goal", "add_neg_goal"), strict=True):
        official = RELEASE["official_outputs_tail_40_chars"][function + suffix]
        if (function, place) == ("add_neg_goal", "user"):
            official = {"chosen": official["rejected"], "rejected": official["chosen"]}  # what the release forgot
        for side in ("chosen", "rejected"):
            wanted = [[role, text[text.find("Overall score") :]] for role, text in official[side]]
            assert talk(row, side) == wanted


def test_a_pair_becomes_two_that_mirror_each_other() -> None:
    high, low = made(PAIR)
    assert (high["chosen"], high["rejected"], low["chosen"], low["rejected"]) == ("GOOD", "BAD", "BAD", "GOOD")
    assert (high["condition"]["levels"], low["condition"]["levels"]) == ({"overall": 10.0}, {"overall": 5.5})
    assert low["chosen_spans"] == PAIR["rejected_spans"] == high["rejected_spans"]
    assert "rejected_spans" not in low
    assert (low["chosen_score"], low["rejected_score"]) == (0.5, 1.0)
    assert high["curation"] == [{"step": "relabel", "goal": 10.0}]
    for row in (high, low):
        assert columns.record(row, where="a", id="a").prompt == conditioned(
            tuple(PAIR["prompt"]), Condition(**row["condition"])
        )


def test_chosen_is_what_matches_the_goal_better() -> None:
    """The property that the method rests on: -(g - s)^2 is larger for chosen, in every row."""
    for rejected in range(10):
        for row in made(PAIR | {"rejected_score": rejected / 10}):
            goal = row["condition"]["levels"]["overall"]
            score = {side: 1 + 9 * row[f"{side}_score"] for side in ("chosen", "rejected")}
            assert -((goal - score["chosen"]) ** 2) > -((goal - score["rejected"]) ** 2)


def test_rows_that_say_nothing() -> None:
    def why(**more: Any) -> str:
        found = made(PAIR | more)
        assert isinstance(found, Dropped)
        return found.why

    assert why(rejected_score=1.0) == "both goals are the same"
    assert why(rejected_score=0.999) == "both goals are the same"
    assert why(chosen_score=0.1) == "the rejected answer has the higher score"
    assert why(chosen_score=None) == "an answer has no score"
    with pytest.raises(DataError, match=r"a rejected_score: there is no such column.*step score"):
        made({key: value for key, value in PAIR.items() if key != "rejected_score"})
    with pytest.raises(DataError, match=r"a: the score 7 is not between 0 and 1.*between"):
        made(PAIR | {"chosen_score": 7})
    with pytest.raises(DataError, match=r"a: goals come from a pair.*pair"):
        made({"id": "a", "prompt": "p", "answers": ["x", "y"]})
    with pytest.raises(DataError, match=r"a chosen_score: 'good' .str. is no score"):
        made(PAIR | {"chosen_score": "good"})


def test_other_shapes() -> None:
    """A prompt that both conversations repeat, and one that is plain text."""
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "GOOD"}]
    worse = [turns[0], {"role": "assistant", "content": "BAD"}]
    high, _ = made(PAIR | {"prompt": "Q", "chosen": turns, "rejected": worse, "rejected_spans": None, "margin": 3})
    assert (high["chosen"], [turn["role"] for turn in high["prompt"]]) == ("GOOD", ["system", "user"])
    assert "margin" not in high
    high, _ = made(PAIR | {"prompt": "Q"})
    assert high["prompt"].endswith("Overall score: 10.\n\nQ")


def test_option_score() -> None:
    high, low = made(PAIR | {"chosen_taste": 0.0, "rejected_taste": 0.0} | {"chosen_taste": 1}, ":score=taste")
    assert (high["condition"]["levels"]["overall"], low["condition"]["levels"]["overall"]) == (10, 1)


def test_option_between() -> None:
    high, low = made(PAIR | {"chosen_score": 8.0, "rejected_score": 6.5}, ":between=[1,10]")
    assert (high["condition"]["levels"], low["condition"]["levels"]) == ({"overall": 8.0}, {"overall": 6.5})
    with pytest.raises(ValueError, match="the worst is below the best"):
        rooms.parse("curation", "relabel:between=[1,0]")


def test_option_scale() -> None:
    high, low = made(PAIR, ":scale=[0,100]")
    assert (high["condition"]["levels"]["overall"], low["condition"]["levels"]["overall"]) == (100, 50)
    assert "0 is the worst and 100 the best" in high["prompt"][0]["content"]


def test_option_digits() -> None:
    row = PAIR | {"rejected_score": 1 / 3}
    assert [made(row, f":digits={n}")[1]["condition"]["levels"]["overall"] for n in (0, 1, 2)] == [4, 4, 4]
    row = PAIR | {"rejected_score": 0.123}
    assert [made(row, f":digits={n}")[1]["condition"]["levels"]["overall"] for n in (0, 1, 3)] == [2, 2.1, 2.107]


def test_option_place() -> None:
    assert [turn["role"] for turn in made(PAIR, ":place=user")[0]["prompt"]] == ["user"]
    assert [turn["role"] for turn in made(PAIR)[0]["prompt"]] == ["system", "user"]


@pytest.mark.real
def test_real_pairs_after_a_rule(shared_data: Path) -> None:
    """Scored by a rule, then relabelled: twice the rows that are left, and all of them train."""
    with gzip.open(shared_data / "pandalm" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    with rooms.parse("curation", "score:reward=(rules:measure=length,target=60)").open(Bench(Path("unused"))) as step:
        scored = [row for found in step(rows) for row in found]
    with rooms.parse("curation", "relabel").open(Bench(Path("unused"))) as step:
        found = list(step(scored))
    kept = [rows for rows in found if rows]
    assert {len(rows) for rows in kept} == {2}
    assert len(kept) > 30
    for both in kept:
        high, low = (columns.record(row, where="r", id="r") for row in both)
        assert high.answers[0].text == low.answers[1].text
        assert high.prompt != low.prompt
