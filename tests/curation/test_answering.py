"""Who answers: prompts that do not fit, and records that a server cannot be asked (the rest in generate and revise)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from _endpoint import Say, serving
from grainline.curation._answering import answering
from grainline.curation._seam import Bench
from grainline.curation.generate import Generate
from grainline.errors import DataError
from grainline.types import Record

if TYPE_CHECKING:
    from _toy import Toy


def test_a_prompt_that_does_not_fit_is_shortened_or_not_asked(toy: Toy) -> None:
    turns = [{"role": role, "content": "tell me of the sea " * 20} for role in ("user", "assistant") * 3]
    short, long = turns[:1], [*turns, turns[0]]
    voice = Generate(model=toy.model, max_new_tokens=6, temperature=0, each=1)
    records = [Record(str(n), tuple(prompt), ()) for n, prompt in enumerate((long, short, long))]
    said = {}
    for whole in (False, True):
        with answering(voice, Bench(Path("unused")), whole=whole) as answer:
            said[whole] = [only for (only,) in answer(iter(records))]
    assert [one["finish"] == "unasked" for one in said[False]] == [False] * 3
    assert [one["finish"] == "unasked" for one in said[True]] == [True, False, True]
    assert said[True][1] == said[False][1]


def test_a_server_is_not_asked_what_it_cannot_be(tmp_path: Path) -> None:
    with serving(otherwise=lambda body: Say("yes")) as server:
        voice = Generate(model="m", base_url=server.url)
        with answering(voice, Bench(tmp_path)) as answer:
            assert [one["text"] for (one,) in answer([Record("a", "p", ())])] == ["yes"]
            with pytest.raises(DataError, match="a: tools and chat_template_kwargs"):
                list(answer([Record("a", "p", (), template={"x": 1})]))
