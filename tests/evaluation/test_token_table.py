"""Tokens with their text: pieces make up the text, whatever its characters; numbers stand where they belong."""

from __future__ import annotations

from typing import Any

import pytest

from _toy import tokenizer
from grainline.data.encode import Encoder
from grainline.evaluation import token_table
from grainline.supervision.segments import Segments
from grainline.types import Answer, Record, Span


@pytest.mark.parametrize(
    "text", ["naïve 日本語 🤖", "a\u2028b\n\tc", "</script> & \x00", "x" * 60 + " 🙂" * 9], ids=repr
)
def test_pieces_make_up_the_text(text: str) -> None:
    made = tokenizer()
    ids = made(text)["input_ids"]
    found = token_table.pieces(made, ids)
    assert len(found) == len(ids)
    assert "".join(found) == made.decode(ids)


def test_a_character_of_several_tokens_stands_at_the_last() -> None:
    made = tokenizer()
    found = token_table.pieces(made, made("a語b")["input_ids"])
    assert [piece for piece in found if piece] == ["a", "語", "b"]
    assert found.index("語") > 1


def test_lines() -> None:
    made: Any = tokenizer()
    answers = (
        Answer("Yes. No never.", (Span(0, 4, "safety", 1.0), Span(5, 14, "safety", 0.25), Span(5, 14, "tone", 0.75))),
        Answer("no"),
    )
    example = Segments()(Encoder(made, max_length=200)(Record("r", ({"role": "user", "content": "hi"},), answers)))
    sides = [
        {"tokens": n, "policy": [-1.0] * n, "reference": [-1.5] * n, "kl": [0.1] * n}
        for n in map(len, (a.ids for a in example.answers))
    ]
    row = {"id": "r", "rewards/margins": 0.3, "rewards/safety/margins": 0.2, "chosen": sides[0], "rejected": sides[1]}
    (line,) = token_table.lines([row], [example], made, beta=0.2)
    assert (line["id"], line["margin"], line["aspects"]) == ("r", 0.3, {"safety": 0.2})
    assert line["prompt"] == [{"role": "user", "content": "hi"}]
    chosen, rejected = line["answers"]
    assert "".join(chosen["tokens"]) == "Yes. No never.<|im_end|>"
    assert chosen["reward"] == [0.1] * sides[0]["tokens"]
    assert [(s["text"], s["aspects"]) for s in chosen["segments"][:2]] == [
        ("Yes.", {"safety": 1.0}), ("No never.", {"safety": 0.25, "tone": 0.75}),
    ]  # fmt: skip
    assert chosen["segments"][1]["score"] == pytest.approx(0.5)
    for side in (chosen, rejected):
        lengths = {len(side[key]) for key in ("tokens", "policy", "reference", "reward", "kl", "weight", "segment")}
        assert lengths == {len(side["tokens"])}
    assert "mask" not in chosen
