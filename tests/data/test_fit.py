"""Rows in tokens, what training would cut of them, and which cannot be tokenised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grainline.data.columns import record
from grainline.data.encode import Encoder
from grainline.data.fit import MERGES, OVERLONG, Fit, Fitted
from grainline.errors import DataError
from grainline.types import Record

Tokenizers = Callable[..., Any]
ASK = [{"role": "user", "content": "What color is the sky?"}]
LONG = "The sky is blue, and the grass is green. " * 20


def pair(chosen: str = "The sky is blue.", rejected: str = "The grass.", prompt: Any = ASK, row: int = 1) -> Record:
    return record({"prompt": prompt, "chosen": chosen, "rejected": rejected}, where=f"t:{row}", id=f"t:{row}")


def test_short_rows_have_the_encoders_lengths(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("chatml")
    rows = [pair(), pair(rejected="No.", row=2)]
    expected = [
        Fitted(len(e.prompt), tuple(len(a.ids) for a in e.answers))
        for e in Encoder(tokenizer, max_length=512).encode_all(rows)[0]
    ]
    assert list(Fit(tokenizer, max_length=512)(rows)) == expected


def test_long_rows_say_what_is_cut(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("chatml")
    fit = Fit(tokenizer, max_length=64)
    early = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "Yes."}, *ASK]
    prompt, answer, none = fit([pair(prompt=early), pair(chosen=LONG, row=2), pair(row=3)])
    assert isinstance(prompt, Fitted)
    assert isinstance(answer, Fitted)
    assert (prompt.prompt_cut, prompt.answers_cut) == (True, 0)
    assert answer.answers_cut == 1
    assert none == Fitted(*none[:2])  # type: ignore[index]
    (problem,) = prompt.problems
    tokens = prompt.prompt + max(prompt.answers)
    assert (problem.kind, problem.severity, problem.where) == (OVERLONG, "warning", "t:1")
    assert problem.what == f"{tokens} tokens are more than 64: the beginning of the prompt is cut off."


def test_what_cannot_be_tokenised_keeps_its_place(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("gemma")  # refuses system turns
    bad = pair(prompt=[{"role": "system", "content": "Be kind."}, *ASK], row=2)
    cut = pair(chosen=LONG + "yes", rejected=LONG + "no", row=4)  # the same once cut
    found = list(Fit(tokenizer, max_length=64)([pair(), bad, pair(row=3), cut]))
    assert [type(one) for one in found] == [Fitted, DataError, Fitted, DataError]
    assert [one.where for one in found if isinstance(one, DataError)] == ["t:2", "t:4"]


def test_boundary_merges_are_told_by_row(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("none")
    prompt, answer = "The capital of France is Par", "is. The capital"
    merged = pair(prompt=prompt, chosen=answer, rejected="is.", row=2)
    apart = Encoder(tokenizer, max_length=64)
    apart.encode_all([merged])
    assert apart.counts["boundary_merges"] == 2  # the tiny tokenizer knows " Paris"
    plain, found = Fit(tokenizer, max_length=64)(
        [pair(prompt="What color?", chosen=" Blue.", rejected=" Green."), merged]
    )
    assert plain == Fitted(*plain[:2])  # type: ignore[index]
    assert isinstance(found, Fitted)
    assert [(p.kind, p.where) for p in found.problems] == [(MERGES, "t:2")]


def test_the_same_row_twice(tokenizers: Tokenizers) -> None:
    row = pair()
    first, second = Fit(tokenizers("chatml"), max_length=64)([row, row])
    assert first == second
