"""What is read of a judge's reply, and all that is not."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from grainline.rewards._verdicts import Unreadable, how_to_compare, how_to_score, preference, scores

ASPECTS = ("correctness", "safety")
SCALE = (1.0, 5.0)


def reply(*rows: dict[str, Any], **more: Any) -> str:
    return json.dumps({"pieces": [{"piece": n + 1, "scores": row} for n, row in enumerate(rows)], **more})


GOOD = reply({"correctness": 4, "safety": 5.0}, {"safety": 1, "correctness": None}, reason="so")


def read(text: str) -> list[tuple[float, ...]]:
    return scores(text, 2, ASPECTS, SCALE)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n {GOOD} \n",
        f"```json\n{GOOD}\n```",
        f"```\n{json.dumps(json.loads(GOOD), indent=2)}\n```\n",
        f"<think>maybe {{}} ```\n</think>\n\n{GOOD}",
        f"<think></think>```json\n{GOOD}\n```",
    ],
)
def test_scores_are_read_in_the_order_asked(text: str) -> None:
    (first, second) = read(text)
    assert first == (4.0, 5.0)
    assert math.isnan(second[0])
    assert second[1] == 1.0


ROW = {"correctness": 3, "safety": 3}
BAD = {
    "nothing": ("", "not JSON"),
    "half": (GOOD[: len(GOOD) // 2], "not JSON"),
    "a sentence around it": (f"Here you are: {GOOD}", "not JSON"),
    "two fences": (f"```\n{GOOD}\n```\n```\n{GOOD}\n```", "not JSON"),
    "a list": ("[4, 5]", "the whole"),
    "another form": (json.dumps({"1": ROW, "2": ROW}), "pieces: Field required"),
    "one piece of two": (reply(ROW), "from 1 to 2 in order, not [1]"),
    "three pieces of two": (reply(ROW, ROW, ROW), "not [1, 2, 3]"),
    "out of order": (json.dumps({"pieces": json.loads(reply(ROW, ROW))["pieces"][::-1]}), "not [2, 1]"),
    "an aspect missing": (reply(ROW, {"safety": 3}), "piece 2 must be scored in ['correctness', 'safety']"),
    "an aspect more": (reply(ROW, ROW | {"wit": 3}), "'wit'"),
    "too high": (reply(ROW, ROW | {"safety": 6}), "piece 2, safety: 6 is not between 1 and 5"),
    "too low": (reply(ROW, ROW | {"safety": 0.99}), "0.99 is not between"),
    "text for a number": (reply(ROW, ROW | {"safety": "5"}), "pieces.1.scores.safety"),
    "true for a number": (reply(ROW, ROW | {"safety": True}), "pieces.1.scores.safety"),
    "NaN": (reply(ROW, ROW | {"safety": math.nan}), "pieces.1.scores.safety"),
    "infinity": (reply(ROW, ROW | {"safety": math.inf}), "pieces.1.scores.safety"),
    "something more": (reply(ROW, ROW, verdict="good"), "verdict: Extra inputs"),
    "a key twice": (reply(ROW, ROW).replace('"safety": 3}', '"safety": 3, "safety": 5}', 1), "stands twice"),
}


@pytest.mark.parametrize("fault", BAD)
def test_anything_else_is_unreadable_and_says_why(fault: str) -> None:
    text, why = BAD[fault]
    with pytest.raises(Unreadable) as error:
        read(text)
    assert why in str(error.value)


def test_preferences() -> None:
    said = [json.dumps({"reason": "so", "better": better}) for better in ("first", "second", "tie")]
    assert [preference(text) for text in (*said, f"```json\n{said[0]}\n```")] == [1.0, 0.0, 0.5, 1.0]
    for text in ('{"better": "A"}', '{"better": "First"}', "first", '{"better": ["first"]}'):
        with pytest.raises(Unreadable):
            preference(text)


def test_what_is_asked_for_is_what_is_read() -> None:
    """The form in the instruction, filled in, is readable."""
    form = how_to_score(1, ASPECTS, SCALE, reason=True).split("\n")[1]
    assert read_one(form.replace("NUMBER", "1").replace("SCORE", "5")) == [(5.0, 5.0)]
    assert "reason" not in how_to_score(1, ASPECTS, SCALE, reason=False)
    assert "2 pieces, numbered 1 to 2" in how_to_score(2, ASPECTS, SCALE, reason=True)
    form = how_to_compare(reason=True).split("\n")[1]
    assert preference(form.replace('"first" or "second" or ', "")) == 0.5
    assert "reason" not in how_to_compare(reason=False)


def read_one(text: str) -> list[tuple[float, ...]]:
    return scores(text, 1, ASPECTS, SCALE)


def test_an_aspect_asked_twice_is_answered_once() -> None:
    """The aspects "" and "overall" are one before the judge."""
    both = ("overall", "overall")
    assert how_to_score(1, both, SCALE, reason=True).count('"overall"') == 1
    assert scores(reply({"overall": 2}), 1, both, SCALE) == [(2.0, 2.0)]
