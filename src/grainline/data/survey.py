"""What one wants to know of preference data before training, in one pass over its rows and in bounded memory.

Of each row about a hundred bytes are kept (:mod:`grainline.data.repeats`), of each kind of problem the first ten
thousand, of lengths how often each occurs. Without a tokenizer lengths are characters and words, and nothing heavy is
imported.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from grainline.data import chat, lengths, load, row_checks
from grainline.data.fit import Fit, Fitted
from grainline.data.formats import Skipped
from grainline.data.problems import Collector, Group, Problem, unusable
from grainline.data.repeats import SAME_ID, Ledger, Prompts
from grainline.errors import DataError
from grainline.types import Record

CHUNK = 256  # rows looked at together
ASPECTS = 1000  # told apart; spans of further ones are counted as OTHERS
OTHERS = "(others)"
TOO_LONG = "rows longer than max_length"
MIXED = "pairs and labelled rows are mixed"


class Aspect(NamedTuple):
    """What the data judges in one aspect."""

    rows: int  # that have a span of it
    spans: int
    chosen: float | None  # mean score of its spans; of labelled rows, in the desirable answers
    rejected: float | None


class Survey(NamedTuple):
    """All that was found."""

    name: str
    counts: Mapping[str, int]  # only what occurs, beside rows, usable and unusable
    passed_over: Mapping[str, int]  # rows that by nature make no record: why, how many
    problems: tuple[Group, ...]
    lengths: Mapping[str, Mapping[str, lengths.Lengths]]  # unit -> part of the row -> lengths before anything is cut
    bias: lengths.Bias | None  # None without pairs
    aspects: Mapping[str, Aspect]  # the commonest first


def survey(
    rows: Iterable[load.Read],
    *,
    name: str = "rows",
    fit: Fit | None = None,
    test: Prompts | None = None,
    progress: Callable[[int], object] | None = None,
) -> Survey:
    """One pass over what :func:`grainline.data.load.stream` gives; ``progress`` hears how many rows were read.

    Raises:
        DataError: there are no rows.
    """
    tally = _Tally(fit)
    for chunk in _chunks(rows):
        tally.add(chunk)
        if progress:
            progress(tally.counts["rows"])
    if not tally.counts["rows"]:
        raise load.nothing(name, tally.passed_over)
    return tally.done(name, test)


def prompts(rows: Iterable[load.Read]) -> tuple[Prompts, int]:
    """The prompts of a test set, and how many of its rows could not be read."""
    found, unread = Prompts(), 0
    for chunk in _chunks(rows):
        found.add([row for row in chunk if isinstance(row, Record)])
        unread += sum(isinstance(row, DataError) for row in chunk)
    return found, unread


def _chunks(rows: Iterable[load.Read]) -> Iterator[list[load.Read]]:
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, CHUNK)):
        yield chunk


class _Tally:
    """Takes rows, chunk by chunk, and counts."""

    def __init__(self, fit: Fit | None) -> None:
        self.fit = fit
        self.marks = row_checks.marks_of(fit.tokenizer) if fit else row_checks.COMMON_MARKS
        self.counts: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()
        self.problems, self.ledger = Collector(), Ledger()
        self.sizes: dict[str, dict[str, Counter[int]]] = {}  # unit -> part -> length -> texts
        self.longer, self.asked = array("b"), array("Q")  # of each pair: 2 chosen is longer, 1 a tie; its prompt
        self.spans: dict[str, list[float]] = {}  # aspect -> rows; spans of chosen, their scores; those of rejected
        self.kinds: dict[bool, str] = {}  # is a pair -> the first of them

    def add(self, chunk: Sequence[load.Read]) -> None:
        self.passed_over.update(row.why for row in chunk if isinstance(row, Skipped))
        errors = [row for row in chunk if isinstance(row, DataError)]
        records = [row for row in chunk if isinstance(row, Record)]
        self.counts["rows"] += len(errors) + len(records)
        fitted: Iterable[Fitted | DataError | None] = self.fit(records) if self.fit else [None] * len(records)
        usable = []
        for record, tokens in zip(records, fitted, strict=True):
            if isinstance(tokens, DataError):
                errors.append(tokens)
            else:
                usable.append(record)
                self._row(record, tokens)
        self.counts["unusable"] += len(errors)
        self.problems.add(map(unusable, errors))
        known = len(self.ledger.prompts)
        self.ledger.add(usable)
        self.asked.extend(n for n, r in zip(self.ledger.prompts[known:], usable, strict=True) if r.is_pair)

    def _row(self, record: Record, tokens: Fitted | None) -> None:
        self.kinds.setdefault(record.is_pair, record.where)
        self.problems.add(row_checks.odd(record, self.marks))
        self.counts.update(name for name, holds in _facts(record).items() if holds)
        self._judged(record)
        texts = (chat.spoken(record.prompt), *(answer.text for answer in record.answers))
        measured = {"characters": [len(t) for t in texts], "words": [len(t.split()) for t in texts]}
        if tokens:
            self.problems.add(tokens.problems)
            measured["tokens"] = [tokens.prompt, *tokens.answers]
            cut = tokens.prompt_cut or tokens.answers_cut > 0
            self.counts.update({TOO_LONG: int(cut), "prompts cut": int(tokens.prompt_cut)})
            self.counts["answers cut"] += tokens.answers_cut
        for unit, found in measured.items():
            for part, length in zip(_parts(record), found, strict=True):
                self.sizes.setdefault(unit, {}).setdefault(part, Counter())[length] += 1
        if record.is_pair:
            _, chosen, rejected = measured.get("tokens") or measured["characters"]
            self.longer.append(1 + (chosen > rejected) - (chosen < rejected))

    def _judged(self, record: Record) -> None:
        seen = set()
        for n, answer in enumerate(record.answers):
            at = 3 if n or record.label is False else 1
            for span in answer.spans:
                aspect = span.aspect if span.aspect in self.spans or len(self.spans) < ASPECTS else OTHERS
                kept = self.spans.setdefault(aspect, [0, 0, 0.0, 0, 0.0])
                kept[0] += aspect not in seen
                kept[at] += 1
                kept[at + 1] += span.score
                seen.add(aspect)

    def done(self, name: str, test: Prompts | None) -> Survey:
        if len(self.kinds) == 2:
            what = f"{MIXED}: {self.kinds[True]} is a pair, {self.kinds[False]} is labelled."
            instead = "Put them in two files and train on one kind."
            self.problems.add([Problem(MIXED, "error", name, what, instead)])
        self.problems.add(self.ledger.problems(test))
        groups = self.problems.groups()
        bad = self.counts.pop("unusable") + sum(group.number for group in groups if group.kind == SAME_ID)
        counts = {"rows": self.counts.pop("rows")}
        counts |= {"usable": counts["rows"] - bad, "unusable": bad, "different prompts": self.ledger.distinct_prompts}
        return Survey(
            name=name,
            counts=counts | {what: n for what, n in self.counts.items() if n},
            passed_over=dict(self.passed_over),
            problems=groups,
            lengths={
                unit: {part: lengths.summary(counted) for part, counted in parts.items()}
                for unit, parts in self.sizes.items()
            },
            bias=self._bias(),
            aspects={aspect: _aspect(kept) for aspect, kept in sorted(self.spans.items(), key=_commonest)},
        )

    def _bias(self) -> lengths.Bias | None:
        if not self.longer:
            return None
        unit = "tokens" if self.fit else "characters"
        chosen, rejected = (lengths.summary(self.sizes[unit][part]).mean for part in ("chosen", "rejected"))
        return lengths.bias(unit, self.longer, self.asked, chosen=chosen, rejected=rejected)


def _facts(record: Record) -> dict[str, bool]:
    turns = () if isinstance(record.prompt, str) else record.prompt
    return {
        "pairs": record.is_pair,
        "desirable answers": record.label is True,
        "undesirable answers": record.label is False,
        "plain-text prompts": not turns,
        "prompts of several turns": sum(turn["role"] == "user" for turn in turns) > 1,
        "prompts with instructions": any(turn["role"] in ("system", "developer") for turn in turns),
        "rows with tools": bool(record.tools),
        "rows with a margin": record.margin is not None,
        "rows with a weight": record.weight != 1.0,
        "rows with spans": any(answer.spans for answer in record.answers),
    }


def _parts(record: Record) -> tuple[str, ...]:
    if record.is_pair:
        return "prompt", "chosen", "rejected"
    return "prompt", "desirable" if record.label else "undesirable"


def _aspect(kept: Sequence[float]) -> Aspect:
    rows, chosen, scored, rejected, scored_rejected = kept
    return Aspect(
        rows=int(rows),
        spans=int(chosen + rejected),
        chosen=scored / chosen if chosen else None,
        rejected=scored_rejected / rejected if rejected else None,
    )


def _commonest(item: tuple[str, Sequence[float]]) -> tuple[float, str]:
    aspect, kept = item
    return -(kept[1] + kept[3]), aspect
