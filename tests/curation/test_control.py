"""control: the paper's value of an answer, the release's four answers, and which answer each request prefers."""

from __future__ import annotations

import json
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pytest

from grainline import rooms
from grainline.curation._seam import Bench, Dropped
from grainline.curation.control import Control
from grainline.data import columns
from grainline.data.conditions import Condition, conditioned
from grainline.errors import DataError

CASES = json.loads((Path(__file__).parents[1] / "golden" / "curation.json").read_text(encoding="utf-8"))[
    "controllable_cpo"
]["cases"]
ROW = {
    "id": "a",
    "prompt": [{"role": "user", "content": "Q"}],
    "answers": [
        {"text": f"{c['help']}{c['honesty']}", "helpfulness": c["help"], "honesty": c["honesty"]} for c in CASES
    ],
}
BOTH = "control:aspects=[helpfulness, honesty],between=[1,5]"


def made(row: dict[str, Any] = ROW, choice: str = BOTH, seed: int = 0) -> Any:
    with rooms.parse("curation", choice).open(Bench(Path("unused"), seed)) as step:
        (found,) = step([row])
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_value_is_the_formulas(case: dict[str, int]) -> None:
    """And where the release's misplaced bracket makes another of it, not the release's."""
    rated = {"helpfulness": case["help"], "honesty": case["honesty"]}
    both = {"helpfulness": case["target_help"], "honesty": case["target_honesty"]}
    assert Control().value(rated, both) == case["intended_both_controlled"] != case["official_both"]
    assert Control().value(rated, {"helpfulness": case["target_help"]}) == case["intended_help_only"]
    assert Control().value(rated, {}) == case["help"] + case["honesty"]


@pytest.mark.parametrize("seed", range(12))
def test_every_two_answers_that_differ_are_a_pair(seed: int) -> None:
    """Against all ordered pairs, one by one."""
    pairs = made(seed=seed)
    asked = pairs[0]["condition"]["levels"]
    value = {
        a["text"]: sum(
            -abs(asked[k] - a[k]) if k in asked else a[k] for k in ("helpfulness", "honesty")
        )
        for a in ROW["answers"]
    }  # fmt: skip
    wanted = {(x, y): value[x] - value[y] for x, y in permutations(value, 2) if value[x] > value[y]}
    assert {(pair["chosen"], pair["rejected"]): pair["margin"] for pair in pairs} == wanted
    for pair in pairs:
        assert pair["prompt"] == conditioned(tuple(ROW["prompt"]), Condition(**pair["condition"]))
        assert "answers" not in pair
        assert pair["chosen_honesty"] == int(pair["chosen"][1])
        assert len(columns.record(pair, where="a", id="a").answers) == 2


def test_only_controlled_levels_stand_in_the_prompt() -> None:
    seen = set()
    for seed in range(30):
        for pair in made(seed=seed):
            levels = pair["condition"]["levels"]
            seen.add(tuple(levels))
            prefix = " ".join(f"<{aspect}: {level:g}>" for aspect, level in levels.items())
            assert pair["prompt"][0]["content"] == f"{prefix} Q".strip()
    assert seen == {(), ("helpfulness",), ("honesty",), ("helpfulness", "honesty")}


def test_a_pair_and_its_matrix_of_scores() -> None:
    """What the step score writes: pieces x aspects, here of two pieces, from 0 to 1."""
    row = {
        "id": "a",
        "prompt": "Q",
        "chosen": "One. Two.",
        "rejected": "No.",
        "aspect_names": ["truth", "tone"],
        "chosen_segments": [[0, 5], [5, 9]],
        "chosen_aspect_scores": [[1.0, 0.5], [0.5, None]],
        "rejected_segments": [[0, 3]],
        "rejected_aspect_scores": [[0.0, 1.0]],
    }
    (pair,) = made(row, "control:controlled=all", seed=1)
    levels = {"One. Two.": {"truth": 4.0, "tone": 3.0}, "No.": {"truth": 1.0, "tone": 5.0}}
    assert pair["condition"]["levels"] == levels[pair["chosen"]]
    assert pair["margin"] == abs(4 - 1) + abs(3 - 5)
    assert pair["chosen_segments"] == row["chosen_segments" if pair["chosen"] == "One. Two." else "rejected_segments"]
    assert {made(row, "control:controlled=all", seed)[0]["chosen"] for seed in range(12)} == set(levels)


def test_rows_that_cannot_be_used() -> None:
    lacking = ROW | {"answers": [*ROW["answers"][:1], {"text": "x", "helpfulness": 3, "honesty": None}]}
    assert made(lacking).why == "too few answers with a rating in every aspect"
    alike = ROW | {"answers": [ROW["answers"][0], ROW["answers"][0] | {"text": "again"}]}
    assert isinstance(made(alike), Dropped)
    with pytest.raises(DataError, match=r"a answer 1, helpfulness: 5 .int. is no rating between 0 and 1"):
        made(choice="control:aspects=[helpfulness]")
    with pytest.raises(DataError, match="a: no aspects"):
        made(choice="control")


def test_option_aspects() -> None:
    assert {k for n in range(9) for p in made(choice="control:aspects=[honesty],between=[1,5]", seed=n)
            for k in p["condition"]["levels"]} == {"honesty"}  # fmt: skip


def test_option_between() -> None:
    row = ROW | {"answers": [{"text": "x", "safety": 1}, {"text": "y", "safety": 0}]}
    found = [made(row, "control:aspects=[safety],controlled=all,level=best", seed=n)[0] for n in range(3)]
    assert {(one["chosen"], one["margin"]) for one in found} == {("x", 4.0)}
    with pytest.raises(ValueError, match="the worst is below the best"):
        Control(between=(1, 1))


def test_option_scale() -> None:
    row = ROW | {"answers": [{"text": "x", "safety": 1}, {"text": "y", "safety": 0}]}
    (pair,) = made(row, "control:aspects=[safety],controlled=all,level=best,scale=[0,1]")
    assert (pair["prompt"][0]["content"], pair["margin"]) == ("<safety: 1> Q", 1.0)


def test_option_controlled() -> None:
    assert {len(made(choice=f"{BOTH},controlled=all", seed=n)[0]["condition"]["levels"]) for n in range(9)} == {2}


def test_option_level() -> None:
    for seed in range(9):
        levels = made(choice=f"{BOTH},controlled=all,level=best", seed=seed)[0]["condition"]["levels"]
        assert set(levels.values()) == {5.0}
    rated = [{k: float(a[k]) for k in ("helpfulness", "honesty")} for a in ROW["answers"]]
    assert all(made(choice=f"{BOTH},controlled=all", seed=n)[0]["condition"]["levels"] in rated for n in range(9))


def test_option_each() -> None:
    many = made(choice=f"{BOTH},each=40")
    conditions = [json.dumps(pair["condition"]) for pair in many]
    assert len(set(conditions)) > 4
    for condition in set(conditions):
        assert conditions.count(condition) <= len(list(combinations(ROW["answers"], 2)))


def test_option_penalty() -> None:
    rated, asked = {"helpfulness": 5.0, "honesty": 2.0}, {"helpfulness": 3.0}
    assert [Control(penalty=n).value(rated, asked) for n in (1, 3)] == [2 - 2, 2 - 6]


def test_option_make() -> None:
    rows = made(choice=f"{BOTH},make=completions,controlled=all")
    assert [row["completion"] for row in rows] == [answer["text"] for answer in ROW["answers"]]
    assert [row["prompt"][0]["content"] for row in rows] == [
        f"<helpfulness: {c['help']}> <honesty: {c['honesty']}> Q" for c in CASES
    ]
    assert columns.record(rows[0], where="a", id="a").label is True


def test_option_place() -> None:
    (first, *_) = made(choice=f"{BOTH},place=system,controlled=all")
    assert [turn["role"] for turn in first["prompt"]] == ["system", "user"]
