"""Sentences: nothing is lost, code stays whole, and cuts are where a reader would make them."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path

import pytest

from grainline.data.sentences import sentences


def cut(text: str, language: str = "en") -> list[str]:
    return [text[a:b] for a, b in itertools.pairwise(sentences(text, language))]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello there. PI is 3.14! Is it? Yes.", ["Hello there. ", "PI is 3.14! ", "Is it? ", "Yes."]),
        ('He said "Stop." Then he left.', ['He said "Stop." ', "Then he left."]),
        ("Dr. Lee paid 3.50 at 9 a.m. in St. Ives. Fine.", ["Dr. Lee paid 3.50 at 9 a.m. in St. Ives. ", "Fine."]),
        ("Use this:\n```\na. b\n\nc.\n```\nGood. Yes.", ["Use this:\n", "```\na. b\n\nc.\n```\n", "Good. ", "Yes."]),
        ("~~~py\nx. y\n~~~\nDone.", ["~~~py\nx. y\n~~~\n", "Done."]),
        ("So:\n```\nnever. closed", ["So:\n", "```\nnever. closed"]),
        (
            "So:\n   ```py\n   a. b\n   c. d\n   ```\nGo. On.",
            ["So:\n   ", "```py\n   a. b\n   c. d\n   ```\n", "Go. ", "On."],
        ),
        ("```\na. b\n```python\nc. d\n```\nOk. So.", ["```\na. b\n```python\nc. d\n```\n", "Ok. ", "So."]),
        ("```x``` is code. Yes. It is.", ["```x``` is code. ", "Yes. ", "It is."]),
        ("One.\n\n\nTwo.  ", ["One.\n\n\n", "Two.  "]),
        ("  Lead. In.", ["  Lead. ", "In."]),
        ("空気を\u3000A.\u00a0Lee。本当だ。", ["空気を\u3000A.\u00a0Lee。", "本当だ。"]),
        (
            "No. I don't. Ask me. OK. See No. 5 in May. Then go.",
            ["No. ", "I don't. ", "Ask me. ", "OK. ", "See No. 5 in May. ", "Then go."],
        ),
        ("no end", ["no end"]),
        (" \n", [" \n"]),
        ("", []),
    ],
)
def test_cuts(text: str, wanted: list[str]) -> None:
    assert cut(text) == wanted


def test_as_2d_dpo_cuts() -> None:
    """What a reimplementation of its rules made of four texts; white space and where it stands aside."""
    golden = json.loads((Path(__file__).parents[1] / "golden" / "curation.json").read_text(encoding="utf-8"))
    cases = golden["two_d_dpo_segmentation"]["cases"]
    theirs = [[piece.strip() for piece in case["segments"] if piece.strip()] for case in cases]
    ours = [[piece.strip() for piece in cut(case["text"])] for case in cases]
    # sentencex keeps the sentences of one numbered line together; theirs cuts them.
    assert (theirs[1][2:], ours[1][2:]) == (["2. Then that.", "Done."], ["2. Then that. Done."])
    assert ours[0:1] + ours[2:] == theirs[0:1] + theirs[2:]
    assert ours[1][:2] == theirs[1][:2]


def test_other_languages() -> None:
    assert cut("空気を下へ。本当だ。", "ja") == ["空気を下へ。", "本当だ。"]
    assert cut("Das ist z. B. gut. Oder?", "de") == ["Das ist z. B. gut. ", "Oder?"]


def test_nothing_is_lost_of_any_text() -> None:
    """Whatever the characters: the pieces are the text, and none of them is blank beside another."""
    rng = random.Random(0)
    alphabet = [
        *"ab A.B!?…:;\"'()“”«»\n\t`~#-1290",
        "```",
        "\r\n",
        " ",
        "\u3000",
        "。",
        "！",
        "é",
        "🙂",
        "\u202e",
        "\x00",
    ]
    for _ in range(2000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(1, 60)))
        pieces = cut(text)
        assert "".join(pieces) == text
        assert all(piece.strip() for piece in pieces) or len(pieces) == 1


@pytest.mark.real
def test_nothing_is_lost_of_real_answers(shared_data: Path) -> None:
    with gzip.open(shared_data / "hh_harmless" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        answers = [row[side] for row in map(json.loads, lines) for side in ("chosen", "rejected")]
    assert len(answers) == 1000
    assert all("".join(cut(answer)) == answer for answer in answers)
