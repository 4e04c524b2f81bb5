"""Rows against a tokenizer and a ``max_length``: how many tokens they take, what is cut, what is read otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from grainline.data.encode import Encoder
from grainline.data.problems import Problem
from grainline.errors import DataError
from grainline.types import Example, Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OVERLONG = "the row is longer than max_length"
MERGES = "an answer would merge with its prompt's last token"
_ENDLESS = 2**40


class Fitted(NamedTuple):
    """One row in tokens, before anything is cut."""

    prompt: int
    answers: tuple[int, ...]
    problems: tuple[Problem, ...] = ()
    prompt_cut: bool = False
    answers_cut: int = 0


class Fit:
    """Tokenises records as training would, and says of each what training would do to it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self._whole = Encoder(tokenizer, max_length=_ENDLESS)
        self._short = Encoder(tokenizer, max_length=max_length)

    def __call__(self, records: Sequence[Record]) -> Iterator[Fitted | DataError]:
        """One for each of ``records``, in order; the error says why a row cannot be used."""
        before = self._merges
        examples, errors = self._whole.encode_all(records)
        merges = self._merges > before  # seldom; then each row is asked by itself
        done, failed = iter(examples), iter(errors)
        example = next(done, None)
        for record in records:
            if example is None or example.record is not record:
                yield next(failed)
                continue
            yield self._fitted(example, merges=merges and self._merging(record))
            example = next(done, None)

    @property
    def _merges(self) -> int:
        return self._whole.counts["boundary_merges"]

    def _merging(self, record: Record) -> bool:
        before = self._merges
        self._whole(record)
        return self._merges > before

    def _fitted(self, example: Example, *, merges: bool) -> Fitted | DataError:
        record, where = example.record, example.record.where or example.record.id
        found = Fitted(len(example.prompt), tuple(len(answer.ids) for answer in example.answers))
        if merges:
            instead = "Let the prompt end with a whole word, and the answers begin with the white space after it."
            merged = Problem(MERGES, "warning", where, f"{MERGES}; it is tokenised alone.", instead)
            found = found._replace(problems=(merged,))
        tokens = found.prompt + max(found.answers)
        if tokens <= self.max_length:
            return found
        try:
            short = self._short(record)
        except DataError as error:
            return error
        prompt_cut = len(short.prompt) < found.prompt
        answers_cut = sum(len(answer.ids) < n for answer, n in zip(short.answers, found.answers, strict=True))
        loses = " and ".join(
            ["the beginning of the prompt"] * prompt_cut + ["the end of an answer"] * (answers_cut > 0)
        )
        what = f"{tokens} tokens are more than {self.max_length}: {loses} is cut off."
        problem = Problem(OVERLONG, "warning", where, what, "Raise max_length, or shorten the row.")
        return found._replace(problems=(*found.problems, problem), prompt_cut=prompt_cut, answers_cut=answers_cut)
