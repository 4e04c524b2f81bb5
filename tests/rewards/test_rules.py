"""Each measure by hand, and that every option is heard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from _toy import jsonl
from grainline import rooms
from grainline.errors import DataError, SpecError
from grainline.rewards._seam import Asked, Desk, Duel, compare


def said(rule: str, *answers: str, prompt: Any = "p", folder: Path = Path()) -> list[float]:
    with rooms.parse("rewards", f"rules:{rule}").open(Desk(folder)) as reward:
        return [scores.value[0][0] for scores in reward.score([Asked(prompt, answer) for answer in answers])]


def test_each_segment_and_each_aspect_is_answered() -> None:
    answer = "One two. Three."
    asked = Asked("p", answer, ((0, 9), (9, 15)), ("correctness", "safety"))
    with rooms.parse("rewards", "rules:measure=length,target=4").open(Desk(Path())) as reward:
        (scores,) = reward.score([asked])
    assert scores.value == ((2 / 4, 2 / 4), (1 / 4, 1 / 4))
    assert scores.spread is None


def test_option_target() -> None:
    assert said("target=4", "a b", "a b c d", "a b c d e f g h") == [1 / 2, 1, 1 / 2]
    assert said("measure=length", "it's a well-made thing") == [5 / 100]
    assert said("measure=match,pattern='[0-9]+',target=4", "1 and 22") == [2 / 4]
    long = "incomprehensibilities"  # grade 5.88 * 21 - 29.6 - 15.8 = 78.08 of one word, one sentence
    assert said("measure=readability,target=75", long) == pytest.approx([1 - (78.08 - 75) / 10])


def test_option_better() -> None:
    answers = "a b", "a b c d", "a b c d e f g h"
    assert said("target=4,better=longer", *answers) == [1 / 2, 1, 1]
    assert said("target=4,better=shorter", *answers) == [1, 1, 1 / 2]


def test_option_measure() -> None:
    """Each of them gives what the table says; and what it cannot read is NaN."""
    easy, hard = "The cat sat on the mat. It was warm.", "Institutional heterogeneity complicates generalisation."
    assert said("measure=readability", easy, hard) == [1, 0]
    happy, sad = said("measure=sentiment", "A great and lovely day.", "A terrible, awful day.")
    assert happy > 0.3 > -0.3 > sad
    for measure in ("length", "readability", "sentiment"):
        assert math.isnan(said(f"measure={measure}", " ... ")[0])
    assert rooms.parse("rewards", "rules:measure=sentiment").between == (-1, 1)


def test_option_language() -> None:
    """ "3." ends a sentence in English, not in German: 40 letters, 4 words, 2 sentences or 1."""
    text, rule = "Donaudampfschifffahrtsgesellschaft am 3. Mai.", "measure=readability,target=30"
    assert said(rule, text) == [1]  # grade 5.88 * 10 - 29.6 * 2 / 4 - 15.8 = 28.2
    assert said(f"{rule},language=de", text) == pytest.approx([1 - (35.6 - 30) / 10])


def test_option_pattern() -> None:
    assert said("measure=match,pattern='(?i)sorry'", "Sorry, no", "here you are", " ")[:2] == [1, 0]
    assert said("measure=exact,answer=42,pattern='= (\\d+)'", "6 + 1 = 7, so 6 * 7 = 42", "= 41", "42") == [1, 0, 0]
    assert said("measure=exact,answer=42,pattern='\\d+'", "it is 42") == [1]
    with pytest.raises(SpecError, match="not a regular expression"):
        rooms.parse("rewards", "rules:measure=match,pattern='('")


def test_option_want() -> None:
    assert said("measure=match,pattern=no,want=absent", "no", "yes") == [0, 1]
    assert said("measure=match,pattern=a,want=absent,target=2", "a", "aaa") == [1 / 2, 0]


def test_option_answer() -> None:
    assert said("measure=exact,answer='New  York'", "new york.", "York") == [1, 0]


def test_option_answers(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "gold.jsonl", [{"prompt": "2 + 2?", "answer": 4}, {"prompt": "capital of\nItaly?", "answer": "Rome"}]
    )
    chat = ({"role": "user", "content": "hello"}, {"role": "user", "content": "capital of Italy?"})
    assert said(f"measure=exact,answers={file}", "Rome", "Paris", prompt=chat) == [1, 0]
    assert said(f"measure=exact,answers={file}", "4", prompt="2 + 2?") == [1]
    assert math.isnan(said(f"measure=exact,answers={file}", "4", prompt="3 + 3?")[0])
    with pytest.raises(SpecError, match="no such file"):
        said("measure=exact,answers=nowhere.jsonl", "4")
    with pytest.raises(DataError, match=r"bad.jsonl:1: not a row with prompt and answer"):
        said(f"measure=exact,answers={jsonl(tmp_path / 'bad.jsonl', [{'prompt': 'p'}])}", "4")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("measure=match", "say which"),
        ("measure=exact", "needs answer or answers"),
        ("measure=exact,answer=a,answers=b", "not both"),
        ("measure=sentiment,target=3", "target is read with measure=length or readability or match only"),
        ("pattern=a", "pattern is read with measure=match or exact only"),
        ("measure=match,pattern=a,better=longer", "better is read with measure=length only"),
    ],
)
def test_an_option_that_nothing_reads_is_refused(rule: str, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        rooms.parse("rewards", f"rules:{rule}")


def test_a_duel_goes_by_the_rule() -> None:
    with rooms.parse("rewards", "rules:better=longer").open(Desk(Path())) as reward:
        assert compare(reward, [Duel("p", "a b c", "a"), Duel("p", "a", "b")]) == [1, 0.5]
